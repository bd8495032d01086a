"""The home as an assistant may know it, and what a small model makes of it: grounded before, repaired after."""
