"""The site's settings; those of Celery, and ours among them, begin with CELERY_."""

import os

url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-this-example")
INSTALLED_APPS = ["videos"]
DATABASES: dict[str, dict[str, str]] = {}
USE_TZ = True

CELERY_BROKER_URL = url
CELERY_RESULT_BACKEND = url
CELERY_IMPORTS = ("celery_concurrency.signals",)
CELERY_CONCURRENCY_DEFAULT_CONFIG = {"platform_max": {"douyin": 2}}
CELERY_CONCURRENCY_EXEMPT = ("videos.tasks.tidy*",)
