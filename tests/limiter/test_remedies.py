"""What a server says that refuses the scripts, and what we say of it (``scripts/remedies.py``)."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError, MovedError, ResponseError

from celery_concurrency import scripts
from celery_concurrency.errors import LimiterUnavailable
from celery_concurrency.limiter import Limiter

#: As the servers' documentation and source have it.
SAID = {
    "Error running script (call to 5f1c): script tried accessing undeclared key": (
        "allow-undeclared-keys"
    ),
    "bad lua script for redis cluster, all the keys that the script uses should be passed using "
    "the KEYS array": "script_check_enable",
    "This instance has Lua scripting support disabled": "--lua",
    "Script attempted to access a non local key in a cluster node": "hash tag",
    "Script attempted to access keys that do not hash to the same slot": "hash tag",
    "this user has no permissions to access one of the keys used as arguments": "ACL SETUSER",
}

#: What is said where a server closed the connection: it wants TLS, or a certificate.
CLOSED = (
    "Error while reading from redis:6379 : (104, 'Connection reset by peer')",
    "Error 32 while writing to socket. Broken pipe.",
    "Connection closed by server.",
)
#: What is said of a connection that does not come about, by servers, OpenSSL and redis-py.
NO_CONNECTION = {
    "This instance has cluster support disabled": "is no Redis Cluster",
    "User few has no permissions to run the 'cluster|slots' command": "ACL SETUSER",
    "Authentication required.": ":password@",
    "invalid username-password pair or user is disabled.": ":password@",
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in "
    "certificate chain (_ssl.c:1006)": "ssl_ca_certs=",
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch, certificate "
    "is not valid for 'redis'. (_ssl.c:1006)": "cluster-announce-hostname",
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired "
    "(_ssl.c:1006)": "renew",
    "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2580)": (
        "ssl_certfile="
    ),
    "EOF occurred in violation of protocol (_ssl.c:2427).": "ssl_certfile=",
    "Error 2 connecting to redis:6379. No such file or directory.": "all files are there",
    "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)": "speaks TLS",
    **dict.fromkeys(CLOSED, "speaks TLS, and only there; if it has tls-auth-clients yes, add a"),
    "Timeout connecting to server": "speaks TLS",
    "Error 111 connecting to redis:6379. Connection refused.": "concurrency_redis_url is right",
}


@pytest.mark.parametrize("said", SAID)
def test_a_refusal_says_what_helps(limiter: Limiter, monkeypatch, said: str) -> None:
    def refuse(*_: object) -> None:
        raise ResponseError(said)

    monkeypatch.setattr(limiter.redis, "evalsha", refuse)
    with pytest.raises(LimiterUnavailable) as refused:
        limiter.try_acquire("t:1", {"account": "a"})
    assert said in str(refused.value)
    assert SAID[said] in str(refused.value)


def test_a_cluster_s_node_that_was_taken_for_a_server_is_told_from_one(
    limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MovedError("15177 10.0.0.1:6379")

    monkeypatch.setattr(limiter.redis, "evalsha", refuse)
    with pytest.raises(LimiterUnavailable, match=r"redis\+cluster://"):
        limiter.try_acquire("t:1", {"account": "a"})


@pytest.mark.parametrize("said", NO_CONNECTION)
def test_a_connection_that_fails_says_what_helps(limiter: Limiter, monkeypatch, said: str) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError(said)

    monkeypatch.setattr(scripts, "PAUSE", 0)
    monkeypatch.setattr(limiter.redis, "evalsha", refuse)
    monkeypatch.setattr(limiter.redis.connection_pool, "get_connection", refuse)
    for call in (lambda: limiter.try_acquire("t:1", {"account": "a"}), limiter.redis.ping):
        with pytest.raises(LimiterUnavailable) as refused:
            call()
        assert said in str(refused.value)
        assert NO_CONNECTION[said] in str(refused.value)


def test_any_other_refusal_is_told_as_it_is(limiter: Limiter, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise ResponseError("something else")

    monkeypatch.setattr(limiter.redis, "evalsha", refuse)
    with pytest.raises(LimiterUnavailable, match=r"Redis refused acquire: something else$"):
        limiter.try_acquire("t:1", {"account": "a"})
