"""The Django app ``celery_concurrency.django``: page and API behind Django's login, and checks.

It also has the command ``manage.py concurrency``.

``views.py`` serves the app of ``api/blueprint.py``, ``checks.py`` finds mistakes in the settings.
"""
