"""The Celery floor, without workers."""
