"""Edge Agent for Home Assistant: so far its protocol alone."""
