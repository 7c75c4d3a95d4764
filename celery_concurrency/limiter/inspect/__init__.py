"""Reads for people: nothing here changes anything. ``usage.py`` is the shortest of them."""
