"""``path("limits/", include("celery_concurrency.django.urls"))``; ``views.py`` answers."""

from django.urls import path

from celery_concurrency.django.views import limits, page

app_name = "celery_concurrency"
urlpatterns = [
    path("", page, name="page"),
    path("<path:path>", limits),
]
