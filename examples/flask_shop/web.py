"""The Flask app: sends tasks, and has the limits' API under /api/v1/concurrency."""

import hmac
import os

from flask import Flask, Request, request
from tasks import app as celery_app
from tasks import publish

from celery_concurrency.api import create_blueprint


def operator(request: Request) -> str | None:
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


app = Flask(__name__)
app.register_blueprint(create_blueprint(celery_app, authorize=operator))


@app.post("/videos")
def publish_video() -> tuple[dict[str, str], int]:
    """Take a video, and publish it when its account is free."""
    video = request.get_json()
    if not isinstance(video, dict) or not {"account", "video"} <= video.keys():
        return {"error": "name the account and the video"}, 400
    result = publish.delay(video["account"], video["video"])
    return {"task": result.id}, 202


@app.get("/videos/<task>")
def look(task: str) -> dict[str, str]:
    """Say how far it is; RETRY means that it waits, and the result says for what."""
    result = celery_app.AsyncResult(task)
    return {"state": result.state, "result": str(result.result)}
