"""The models a node can run: which there are, how they get here and how they read."""
