"""A load of real workers during which processes are killed at random, and Redis runs full.

``load.py`` is the load and who kills, ``causes.py`` says of each lost or doubled task why.
"""
