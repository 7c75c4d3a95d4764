"""The site's pages: Django's admin, and the limits, which need its login."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("limits/", include("celery_concurrency.django.urls")),
]
