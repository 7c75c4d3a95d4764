"""The app's entry for ``INSTALLED_APPS``; ``checks.py`` has its system checks."""

from django.apps import AppConfig
from django.core.checks import register

from celery_concurrency.django.checks import check_celery_app


class ConcurrencyConfig(AppConfig):
    """``celery_concurrency.django`` in ``INSTALLED_APPS``."""

    name = "celery_concurrency.django"
    label = "celery_concurrency"
    verbose_name = "Celery concurrency"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        register(check_celery_app)
