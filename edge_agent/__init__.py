"""Edge Agent: the language model of a home, running in the home."""

__version__ = "0.1.0"
