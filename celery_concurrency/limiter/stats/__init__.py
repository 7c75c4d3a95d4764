"""Statistics: what was counted (``counters.py``), how long it took (``durations.py``)."""
