"""Found by ``autodiscover_tasks``; gated because CELERY_IMPORTS says so."""

from celery import shared_task


@shared_task(concurrency={"platform": "douyin", "account": lambda account: account})
def publish(account: str, video: str) -> str:
    """Publish a video; two of one account never run at once."""
    return f"{video} by {account}"


@shared_task
def tidy_up() -> str:
    """Run whatever the limits say: its name is in CELERY_CONCURRENCY_EXEMPT."""
    return "tidied up"
