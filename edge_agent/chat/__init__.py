"""The text room: OpenAI bodies to prompts, and written text back to answers. Pure: no I/O, no clock, no event loop."""
