"""Where Django looks for commands; ours is ``commands/concurrency.py``."""
