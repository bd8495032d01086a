"""The doors: one way in each, strangers to each other. A door decodes, asks the scheduler and encodes."""
