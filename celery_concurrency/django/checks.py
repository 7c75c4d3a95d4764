"""System checks, run by ``manage.py check`` and before ``runserver`` and ``migrate``.

They find what a worker would refuse when it starts (``worker/settings.py``), and more.
"""

import sys
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from celery_concurrency.django.site_app import MISSING, REMEDY, has_app, site_app
from celery_concurrency.errors import ImproperlyConfigured
from celery_concurrency.worker.apps import limiter_of
from celery_concurrency.worker.settings import namespaces_in

SIGNALS = "celery_concurrency.signals"


def check_celery_app(**_: Any) -> list[CheckMessage]:
    """Return what is wrong with the site's Celery app and its settings."""
    if not has_app():
        return [Error(MISSING, hint=REMEDY, id="celery_concurrency.E001")]
    app = site_app()
    found: list[CheckMessage] = []
    try:
        # A site that only sends tasks need not say which of them it serves.
        for namespace in namespaces_in(app.conf) or [None]:
            limiter_of(app, namespace)
    except ImproperlyConfigured as exc:
        found.append(
            Error(
                str(exc),
                hint="In Django's settings its name is in capitals and begins with CELERY_.",
                id="celery_concurrency.E002",
            )
        )
    # A task with ConcurrencyTask as its base loads it too.
    if SIGNALS not in (*app.conf.imports, *app.conf.include) and SIGNALS not in sys.modules:
        found.append(
            Warning(
                "No task of this site is limited",
                hint=f"Add {SIGNALS!r} to CELERY_IMPORTS, or give tasks the base ConcurrencyTask.",
                id="celery_concurrency.W001",
            )
        )
    return found
