"""Commands of a site's own command line; ours is ``concurrency.py``."""
