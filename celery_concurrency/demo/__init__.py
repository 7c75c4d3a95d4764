"""The demo: a server, two workers under limits, and a live view. It begins in ``__main__.py``."""
