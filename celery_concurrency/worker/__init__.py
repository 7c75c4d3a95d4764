"""Celery: how a task asks the limiter, waits and ends. ``gate.py`` tells the path of a run."""
