"""The demo: a server, two workers under limits, and a live view of them.

It begins in ``__main__.py``.
"""
