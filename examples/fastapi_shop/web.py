"""The FastAPI app: sends tasks, and has the limits and their page under /limits."""

import hmac
import os

import flask
from celery.result import AsyncResult
from fastapi import FastAPI, status
from pydantic import BaseModel
from tasks import app as celery_app
from tasks import publish

from celery_concurrency.api import create_asgi_app


def operator(request: flask.Request) -> str | None:
    """Return who asks, if they may: this shop's own way to know its operators."""
    given = request.authorization
    password = os.environ.get("OPERATOR_PASSWORD", "")
    if (
        given
        and password
        and hmac.compare_digest((given.password or "").encode(), password.encode())
    ):
        return given.username
    return None


class Video(BaseModel):
    """A video to publish."""

    account: str
    video: str


app = FastAPI()
app.mount("/limits", create_asgi_app(celery_app, authorize=operator))


@app.post("/videos", status_code=status.HTTP_202_ACCEPTED)
def publish_video(video: Video) -> dict[str, str]:
    """Take a video, and publish it when its account is free."""
    return {"task": publish.delay(video.account, video.video).id}


@app.get("/videos/{task}")
def look(task: str) -> dict[str, str]:
    """Say how far it is; RETRY means that it waits, and the result says for what."""
    result = AsyncResult(task, app=celery_app)
    return {"state": result.state, "result": str(result.result)}
