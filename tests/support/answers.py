"""What the API and the command line answer, checked; and what Redis has then."""

from __future__ import annotations

import json

from redis import Redis


def all_keys(redis_url):
    """Return every key of ours with its value and its time to live."""
    read = {
        b"string": lambda raw, key: raw.get(key),
        b"hash": lambda raw, key: raw.hgetall(key),
        b"zset": lambda raw, key: raw.zrange(key, 0, -1, withscores=True),
        b"stream": lambda raw, key: raw.xrange(key),
    }
    with Redis.from_url(redis_url) as raw:
        return {
            key: (read[raw.type(key)](raw, key), raw.ttl(key))
            for key in raw.scan_iter("concurrency:*")
        }


def assert_refused(response, status, code):
    """The envelope of an error, whole and alone; returns its details."""
    body = json.loads(response.get_data())
    assert response.status_code == status, body
    assert response.mimetype == "application/json"
    assert set(body) == {"success", "message", "error"}
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code
    assert body["message"] == body["error"]["message"] != ""
    assert isinstance(body["error"]["details"], list)
    return body["error"]["details"]


def out(done):
    """Return what a command that succeeded printed."""
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout


def refusal(done):
    """Return the one line that a refusal says."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def mistake(done):
    """Return what a mistake in the call is answered with."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "Error: " in done.stderr
    return done.stderr
