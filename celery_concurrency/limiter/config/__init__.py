"""The run-time configuration: its fields in ``schema.py``, where it is kept in ``store.py``."""
