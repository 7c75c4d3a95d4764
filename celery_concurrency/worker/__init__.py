"""Celery: how a task asks the limiter, waits and ends. ``gate.py`` describes the path of a run."""
