"""The server of ``serve``: who is silent, slow or greedy keeps nobody else from an answer."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from flask import Flask, Response, request

from celery_concurrency.cli import http_server
from celery_concurrency.cli.http_server import HEADER_SECONDS, MAX_BODY, MAX_READ, Server, listen
from tests.support.serving import Serving
from tests.support.wire import connect, rest_of
from tests.support.workers import wait_for

HEALTH = "/api/v1/concurrency/health"
BIG = 8 * 2**20


def small_app():
    """An app that tells what it was asked, answers much, or waits until it is let go on."""
    app = Flask("small")
    app.go_on = threading.Event()

    @app.route("/", methods=["GET", "PUT"])
    def index():
        request.max_content_length = MAX_BODY
        body = request.get_data().decode()
        return {"body": body, "query": request.query_string.decode(), "host": request.host}

    @app.get("/big")
    def big():
        return Response(b"x" * BIG)

    @app.get("/slow")
    def slow():
        app.go_on.wait(20)
        return "slow"

    return app


class Counting(Server):
    """Counts the connections that it has taken, those too that have gone since."""

    taken = 0

    def handle_stream(self, stream, address):
        self.taken += 1
        super().handle_stream(stream, address)


@contextmanager
def served(most=20, app=None):
    """Serve in a thread of this process; yields the port and the server."""
    ready = threading.Event()
    found = {}

    async def run():
        found["stop"] = stop = asyncio.Event()
        found["loop"] = asyncio.get_running_loop()
        sockets = listen("127.0.0.1", 0)
        with ThreadPoolExecutor(2) as threads:
            found["server"] = server = Counting(app or small_app(), threads, most)
            server.add_sockets(sockets)
            found["port"] = sockets[0].getsockname()[1]
            ready.set()
            await stop.wait()
            server.stop()
            await server.close_all_connections()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield found["port"], found["server"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join(20)


def is_open(one):
    one.setblocking(False)
    try:
        return one.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def ask(port, path="/", method="GET", body=None, **headers):
    """Return an answer and the seconds it took."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    response.text = response.read()
    connection.close()
    return response, time.monotonic() - began


# -- a real one


def files_of(serving):
    return len(os.listdir(f"/proc/{serving.process.pid}/fd"))


def memory_of(serving):
    """Return the megabytes of memory that a process has."""
    with open(f"/proc/{serving.process.pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def assert_prompt(serving):
    """Ask for health a few times: mostly sooner than silent connections go by themselves."""
    took = []
    for _ in range(5):
        response, seconds = ask(serving.port, HEALTH)
        assert response.status == 200
        took.append(seconds)
    assert sorted(took)[2] < HEADER_SECONDS / 2, took


@pytest.mark.parametrize("begun", [b"", b"GET /", f"GET {HEALTH} HTTP/1.1\r\nHost: lo".encode()])
def test_a_thousand_silent_connections_keep_nobody_waiting(redis_url, begun):
    with Serving(redis_url) as serving:
        assert_prompt(serving)
        before = files_of(serving), memory_of(serving)
        began = time.monotonic()
        silent = [connect(serving.port, begun) for _ in range(1_000)]
        assert_prompt(serving)
        # All of them were taken, and stay until it is time; a slow machine may be late to see it.
        files = files_of(serving)
        assert files > before[0] + 990 or time.monotonic() - began > HEADER_SECONDS - 1
        assert memory_of(serving) < before[1] + 60
        if not begun:
            # After the time-out for headers; those that have begun are the same to it.
            assert [rest_of(one) for one in silent] == [b""] * 1_000
            wait_for(lambda: files_of(serving) <= before[0] + 5)
        assert_prompt(serving)
        for one in silent:
            one.close()
        began = time.monotonic()
        status, _, errors = serving.stop(signal.SIGINT)
        assert (status, "Traceback" in errors) == (0, False), errors
        assert time.monotonic() - began < 30


def test_more_connections_than_files(redis_url):
    """The limit of open files is what bounds them, and a full table is no error."""
    with Serving(redis_url, files=400) as serving:
        silent = [connect(serving.port) for _ in range(600)]
        assert_prompt(serving)
        wait_for(lambda: not is_open(silent[0]))  # the oldest ones went
        assert files_of(serving) < 400
        errors = serving.stop()[2]
    assert "connections are open; closing those that have been silent longest" in errors
    assert "Traceback" not in errors
    for one in silent:
        one.close()


def test_a_low_limit_of_open_files_is_raised(redis_url):
    with Serving(redis_url, files=(128, 4_096)) as serving:
        silent = [connect(serving.port) for _ in range(300)]
        assert_prompt(serving)
        # Nobody had to go for it; after a while silent ones go by themselves.
        assert "closing those" not in serving.stop()[2]
        for one in silent:
            one.close()


# -- in this process: who goes, and when


@pytest.fixture
def patient(monkeypatch):
    """Let nobody go by the time-out for headers, however slow this machine is."""
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 600)


def test_the_longest_silent_one_goes_first(patient):
    with served(most=5) as (port, server):
        silent = [connect(port) for _ in range(5)]
        wait_for(lambda: len(server._open) == 5)
        assert all(map(is_open, silent))
        for gone in range(3):
            more = connect(port)
            wait_for(lambda: not is_open(silent[0]), what=f"{gone} goes")
            assert all(map(is_open, silent[1:]))
            silent.pop(0).close()
            silent.append(more)
        assert json.loads(ask(port)[0].text)["body"] == ""


def test_who_is_being_answered_stays():
    app = small_app()
    with served(most=3, app=app) as (port, server):
        waits = connect(port, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: len(server.answers) == 1)
        for one in [connect(port) for _ in range(10)]:
            wait_for(lambda: len(server._open) <= 3)
            one.close()
        app.go_on.set()
        waits.settimeout(20)
        assert b"slow" in waits.recv(1000)
        waits.close()


@pytest.mark.parametrize(
    ("begun", "drip"),
    [
        (b"", b""),
        (b"", b"G"),  # a byte at a time never ends
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-More: 1\r\n"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G"),  # after an answer
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n", b"b"),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nb\r\n"),
    ],
)
def test_who_never_ends_a_request_is_left(monkeypatch, begun, drip):
    monkeypatch.setattr(http_server, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(http_server, "BODY_SECONDS", 0.5)
    with served() as (port, server):
        one = connect(port, begun)
        wait_for(lambda: server.taken == 1)

        def is_left():
            try:
                one.send(drip)
            except OSError:
                return True
            return not server._open

        wait_for(is_left)
        wait_for(lambda: not server._open)
        one.close()


def test_who_never_reads_the_answer_is_left(monkeypatch):
    monkeypatch.setattr(http_server, "ANSWER_SECONDS", 0.5)
    with served() as (port, server):
        one = connect(port, b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: server.taken)
        wait_for(lambda: not server._open)
        assert len(rest_of(one)) < BIG
        monkeypatch.setattr(http_server, "ANSWER_SECONDS", 60)
        assert len(ask(port, "/big")[0].text) == BIG
        one.close()


def test_one_connection_takes_one_request_after_the_other(monkeypatch):
    """Its clocks begin anew each time; and of requests sent at once, each is answered."""
    monkeypatch.setattr(http_server, "ANSWER_SECONDS", 0.3)
    with served() as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            connection.request("GET", "/")
            assert connection.getresponse().read()
        connection.close()
        one = connect(port, 3 * b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while said.count(b"HTTP/1.1 200 OK") < 3:
            said += one.recv(1000)
        one.close()


def test_bodies_are_bounded_together(monkeypatch, patient):
    monkeypatch.setattr(http_server, "BODY_SECONDS", 600)
    monkeypatch.setattr(http_server, "MAX_BODIES", 300_000)
    head = b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
    with served() as (port, server):
        silent, first = connect(port), connect(port, head + b"x" * 180_000)
        wait_for(lambda: sum(server._expected.values()) > 100_000)
        second = connect(port, head + b"x" * 180_000)
        assert rest_of(first) == b""
        assert is_open(silent)
        second.sendall(b"x" * 20_000)
        assert second.recv(100).startswith(b"HTTP/1.1 200 OK")
        for one in (silent, first, second):
            one.close()


# -- what the app is told, and what it says


def test_a_request_comes_as_it_was_sent():
    with served() as (port, _):
        body = "正文".encode() * 1000
        answer = ask(port, "/?a=%0A&b=%2F", "PUT", body)[0]
        told = json.loads(answer.text)
        assert told == {"body": body.decode(), "query": "a=%0A&b=%2F", "host": f"127.0.0.1:{port}"}
        assert answer.headers["Date"]
        assert "Server" not in answer.headers
        chunks = (b"abc", b"def")
        assert json.loads(ask(port, "/", "PUT", iter(chunks))[0].text)["body"] == "abcdef"
        head = ask(port, "/", "HEAD")[0]
        assert (head.status, head.text) == (200, b"")
        assert ask(port, "/nope")[0].status == 404


def in_chunks(length):
    return (b"x" * 2**16 for _ in range(length // 2**16))


@pytest.mark.parametrize(
    "body",
    [b"x" * (MAX_BODY + 1), b"x" * MAX_READ, in_chunks(MAX_BODY + 2**16), in_chunks(MAX_READ)],
    ids=["a little", "much", "a little, in chunks", "much, in chunks"],
)
def test_a_body_that_is_too_long_is_refused_by_the_app(body):
    with served() as (port, server):
        assert ask(port, "/", "PUT", body)[0].status == 413
        assert ask(port, "/", "PUT", b"x" * MAX_BODY)[0].status == 200
        wait_for(lambda: not server._open)


@pytest.mark.parametrize(
    "body", [b"x" * (MAX_READ + 1), in_chunks(MAX_READ + 2**16)], ids=["told", "in chunks"]
)
def test_a_body_that_is_far_too_long_is_not_waited_for(body):
    with served() as (port, _):
        # Whoever goes on sending may not see the answer.
        with suppress(BrokenPipeError, ConnectionResetError):
            assert ask(port, "/", "PUT", body)[0].status == 413
        assert ask(port)[0].status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost:abc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost:-1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: local\x1bhost\r\n\r\n",
        b"GET /\x1b[2J HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(sent, caplog):
    with served() as (port, server):
        one = connect(port, sent)
        assert rest_of(one).startswith(b"HTTP/1.1 400 Bad Request")
        one.close()
        wait_for(lambda: not server._open)
        assert ask(port)[0].status == 200
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_a_request_that_cant_be_answered_keeps_no_connection(monkeypatch):
    with served() as (port, server):
        monkeypatch.setattr(server._container, "environ", lambda request: 1 // 0)
        one = connect(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert rest_of(one) == b""
        one.close()
        wait_for(lambda: not server._open)


def test_what_was_asked_before_ctrl_c_is_answered(redis_url):
    with Serving(redis_url) as serving:
        one = connect(serving.port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert one.recv(10) == b"HTTP/1.1 2"
        assert serving.stop(signal.SIGINT)[0] == 0
        one.close()
