"""The engine room: one file or small package per runtime, every one behind `base.Engine`, strangers to each other."""
