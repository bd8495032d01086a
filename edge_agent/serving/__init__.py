"""The serving room: which request runs when, and how one is answered. Doors come to it, engines obey it."""
