"""The permissions that ``views.py`` asks for; there is no table."""

from django.db import models


class Limits(models.Model):
    """What the permissions are about: they need a model, and this one is never stored."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = (
            ("view_limits", "Can view concurrency limits"),
            ("change_limits", "Can change concurrency limits"),
        )
