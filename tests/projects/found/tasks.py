"""Tasks that don't know the app they will belong to."""

from __future__ import annotations

from celery import shared_task

from tests.support.sites import note


@shared_task
def found(kind: str = "found") -> str:
    """Be found by autodiscovery."""
    note(kind)
    return kind
