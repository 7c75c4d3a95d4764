"""What helps where a server refuses the scripts, or a connection, by what is said of it.

``__init__.py`` calls the scripts. ``docs/howto/servers.md`` and ``docs/howto/cluster.md`` say more.
"""

from typing import Final

from redis.exceptions import MovedError, RedisError

_HASH_TAG: Final = "put a hash tag into concurrency_key_prefix, such as '{concurrency}'"
_CLUSTER: Final = (
    "begin concurrency_redis_url with redis+cluster:// (with TLS: rediss+cluster://) "
    "if it is a Redis Cluster"
)
_ACL: Final = (
    "let its user do everything with keys that begin with the prefix: "
    "ACL SETUSER name ~concurrency* &* +@all -@dangerous +info, "
    "and in a Redis Cluster ~{concurrency}*"
)
_LOGIN: Final = (
    "put its password into concurrency_redis_url, as in redis://:password@host:port, "
    "with a user as user:password, and each of / : @ # ? % in them percent-encoded"
)
_TLS: Final = (
    "check that it runs, and that concurrency_redis_url begins with rediss where it speaks TLS, "
    "and only there"
)
_CERTIFICATE: Final = "ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key"
#: A server that wants a certificate may be gone before its alert is read.
_WANTED: Final = (
    "if it has tls-auth-clients yes, add a certificate of your own to "
    f"concurrency_redis_url: {_CERTIFICATE}"
)
#: Where nothing better is known.
CHECK: Final = "; check that it runs and that concurrency_redis_url is right"

#: A part of what the server says, in lower case, and what to do.
_REMEDIES: Final = (
    (
        "undeclared key",
        "let scripts use keys that they don't declare: start Dragonfly with "
        "--default_lua_flags=allow-undeclared-keys, set lua-strict-key-accessing to no in Kvrocks",
    ),
    (
        "should be passed using the keys array",
        f"set script_check_enable to 0 in the console of your cloud, and {_HASH_TAG}",
    ),
    ("lua scripting support disabled", "start Garnet with --lua"),
    ("do not hash to the same slot", f"{_CLUSTER}; else {_HASH_TAG}"),
    (
        "non local key",
        f"{_CLUSTER}; else {_HASH_TAG}; a node of Valkey 9.1 that says so without cause has to be "
        "restarted",
    ),
    (
        "cluster support disabled",
        "begin concurrency_redis_url with redis:// (with TLS: rediss://): it is no Redis Cluster",
    ),
    ("noperm", _ACL),
    ("no permissions", _ACL),
    ("can't access at least one of the keys", _ACL),
    ("authentication required", _LOGIN),
    ("invalid username-password pair", _LOGIN),
    (
        "certificate is not valid for",
        "name servers in concurrency_redis_url as their certificates do; the nodes of a Redis "
        "Cluster announce such names by cluster-announce-hostname and "
        "cluster-preferred-endpoint-type hostname",
    ),
    ("certificate has expired", "renew the server's certificate"),
    (
        "certificate_verify_failed",
        "name a file with its authority's certificate in concurrency_redis_url: "
        "?ssl_ca_certs=/path/ca.pem",
    ),
    (
        "alert certificate required",
        f"add a certificate of your own to concurrency_redis_url: {_CERTIFICATE}",
    ),
    ("eof occurred in violation of protocol", f"check that it runs; {_WANTED}"),
    (
        "no such file or directory",
        "check that all files are there that concurrency_redis_url names",
    ),
    ("wrong version number", _TLS),
    ("record layer failure", _TLS),
    ("connection reset by peer", f"{_TLS}; {_WANTED}"),
    ("broken pipe", f"{_TLS}; {_WANTED}"),
    ("connection closed by server", f"{_TLS}; {_WANTED}"),
    ("timeout connecting to server", _TLS),
)


def remedy_of(error: RedisError) -> str:
    """Return what to do about a refusal, behind a "; "; "" where that isn't known."""
    said = str(error).lower()
    # Since 6.0, redis-py takes the word out of the text.
    if isinstance(error, MovedError) or said.startswith("moved "):
        return f"; {_CLUSTER}"
    return next((f"; {remedy}" for part, remedy in _REMEDIES if part in said), "")
