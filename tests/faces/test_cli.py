"""The command line, as users type it; and the seed's own commands against ``serve``."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import types
import urllib.request
from pathlib import Path

import pytest
from redis import Redis

from celery_concurrency.cli.config import parse_change
from celery_concurrency.cli.output import duration, print_table
from celery_concurrency.limiter.config.history import Author
from celery_concurrency.limiter.config.schema import Config
from celery_concurrency.testing.server import Server
from tests.support.answers import mistake, out, refusal
from tests.support.serving import Serving
from tests.support.waiting import park

DEFAULTS = Config().to_dict()
NOWHERE = "redis://127.0.0.1:1/0"
SEED = (Path(__file__).parent.parent / "seed.md").read_text("utf-8")


# -- showing


def test_usage_as_a_table(cli, limiter):
    limiter.config.update(
        {"platform_max": {"douyin": 5}, "paused": ["platform:kuaishou"], "dimensions": {"t": {}}}
    )
    limiter.try_acquire("1", {"platform": "douyin", "account": "账号", "t": "x"})
    park(limiter, "2", {"platform": "douyin", "account": "账号"})
    rows = [re.split(r"  +", line) for line in out(cli("usage")).splitlines()]
    assert rows[0] == ["limit", "current", "max", "waiting", "oldest wait"]
    oldest = rows[1].pop()
    assert re.fullmatch(r"\d+ s", oldest)
    assert rows[1] == ["global", "1", "unlimited", "1"]
    assert ["platform:douyin", "1", "5", "1", oldest] in rows
    assert ["platform:kuaishou", "0", "unlimited (paused)", "0"] in rows
    assert ["account:账号", "1", "1", "1", oldest] in rows
    assert ["t:x", "1", "unlimited", "0"] in rows
    assert len(rows) == 2 + 5 + 2 + 1 + 1


def test_usage_says_who_paused_a_limit(here, limiter):
    limiter.config.pause("platform:douyin", Author("cli", "ann"))
    said = here("usage").stderr
    assert re.fullmatch(r"platform:douyin is paused since .+ by ann \(cli\)\n", said)


def test_usage_as_json(here, limiter):
    limiter.try_acquire("1", {"platform": "douyin", "account": "a"})
    usage = json.loads(out(here("usage", "--json")))
    assert usage == limiter.usage().to_dict()
    assert usage["platforms"]["douyin"] == {"current": 1, "max": 0}


@pytest.mark.parametrize("window", [(), ("--window", "1h"), ("--window", "total")])
def test_stats(here, limiter, window):
    limiter.try_acquire("1", {"platform": "douyin"})
    counted = {"acquired:total": 1, "released:total": 0, "acquired:platform:douyin": 1}
    assert json.loads(out(here("stats", "--json", *window))) == counted
    table = [line.split() for line in out(here("stats", *window)).splitlines()]
    assert table[0] == ["counter", window[1] if window else "24h"]
    assert {name: int(count) for name, count in table[1:]} == counted


def test_config_get(here, limiter):
    limiter.config.update({"dimensions": {"ten.ant": {"max": 2, "overrides": {"a.b": 5}}}})
    whole = {**DEFAULTS, "dimensions": {"ten.ant": {"max": 2, "overrides": {"a.b": 5}}}}
    shown = out(here("config", "get"))
    assert json.loads(shown) == whole
    assert shown.count("\n") > 10
    one_line = out(here("config", "get", "--json"))
    assert json.loads(one_line) == whole
    assert one_line.count("\n") == 1
    for field, value in {
        "global_max": 0,
        "platform_max": DEFAULTS["platform_max"],
        "platform_max.douyin": 0,
        "paused": [],
        "dimensions.ten.ant.overrides.a.b": 5,
    }.items():
        assert json.loads(out(here("config", "get", field))) == value, field
    assert "platform_max.nope" in refusal(here("config", "get", "platform_max.nope"))
    assert "global_max.x" in refusal(here("config", "get", "global_max.x"))


def test_what_is_wrong_with_a_text_written_by_hand_is_said(here, redis, limiter):
    limiter.config.update({"global_max": 2})
    redis.set("concurrency:config", '{"globel_max": 1}')
    for arguments in (
        ("config", "get"),
        ("usage", "--json"),
        ("usage",),
        ("config", "get", "timeout"),
    ):
        done = here(*arguments)
        assert out(done)
        assert "not in force: globel_max" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert json.loads(out(here("config", "get", "global_max"))) == 2


# -- changing


def test_config_set_and_reset(cli, here, limiter):
    done = cli(
        *("config", "set", "--json", "global_max=4", "platform_max.douyin=2", "enabled=false"),
        *("platform_max.抖.音=3", "account_overrides.a=b=7", 'paused=["platform:a=b"]'),
        *('dimensions={"ten.ant": {"max": 1}}', "platform_max.channels=null", "timeout=60"),
    )
    expected = Config().merged(
        {
            "global_max": 4,
            "platform_max": {"douyin": 2, "抖.音": 3, "channels": None},
            "enabled": False,
            "account_overrides": {"a=b": 7},
            "paused": ["platform:a=b"],
            "dimensions": {"ten.ant": {"max": 1}},
            "timeout": 60,
        }
    )
    assert json.loads(out(done)) == expected.to_dict()
    assert limiter.config.sync().config == expected

    done = here("config", "set", "dimensions.ten.ant.max=9", "dimensions.ten.ant.overrides.x=1")
    assert json.loads(out(done))["dimensions"] == {"ten.ant": {"max": 9, "overrides": {"x": 1}}}
    assert "in force" in done.stderr

    assert json.loads(out(here("config", "reset", "--yes"))) == DEFAULTS
    assert limiter.config.sync().config == Config()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("global_max=-1",), "global_max"),
        (("global_max=2", "globel_max=1"), "globel_max: there is no such field"),
        (("global_max=2", 'timeout="5"'), "timeout"),
        (("global_max=null",), "null"),
        (("paused=1", "account_max=true"), "account_max"),
        (("platform_max.a\nb=-1",), r"platform_max.a\nb: "),
        (("dimensions.id.max=1",), "uses itself"),
    ],
)
def test_a_change_that_is_not_valid_is_refused_whole(here, limiter, redis, changes, said):
    limiter.config.update({"global_max": 3})
    before = redis.get("concurrency:config"), redis.hgetall("concurrency:config:flat")
    assert said in refusal(here("config", "set", *changes))
    assert (redis.get("concurrency:config"), redis.hgetall("concurrency:config:flat")) == before


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("global_max=4", "global_max", 4),
        ("global_max= 4 ", "global_max", 4),
        ("platform_max.a=b=4", "platform_max.a=b", 4),
        ('paused=["platform:a=b"]', "paused", ["platform:a=b"]),
        ("platform_max.a=null", "platform_max.a", None),
        ('x="a=1"', "x", "a=1"),
        ("global_max=-1", "global_max", -1),
    ],
)
def test_the_value_of_a_change_is_json(text, field, value):
    assert parse_change(text) == (field, value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "set"),
        ("config", "set", "global_max"),
        ("config", "set", "global_max=four"),
        ("config", "set", "=4"),
        ("config", "set", "global_max="),
        ("config", "set", "global_max=NaN"),
        ("config", "set", "global_max=4", "--nope"),
        ("config", "nope"),
        ("config", "get", "a", "b"),
        ("stats", "--window", "2h"),
        ("serve", "--port", "x"),
        ("serve", "--port", "65536"),
        ("usage", "more"),
        ("nope",),
    ],
)
def test_mistakes_in_the_call_exit_with_2(here, arguments):
    mistake(here(*arguments))


def test_a_mistake_says_what_it_is(here):
    assert "given twice" in mistake(here("config", "set", "global_max=1", "global_max=2"))
    twice = ("platform_max.a=1", 'platform_max={"b": 2}')
    assert "given twice" in mistake(here("config", "set", *twice))
    assert "No such command" in mistake(here("nope"))


def test_a_mistake_of_a_real_process_exits_with_2_too(cli):
    assert "VALUE in JSON" in mistake(cli("config", "set", "global_max=four", BROKER_URL=NOWHERE))
    assert "tests.projects.no_such" in mistake(cli("usage", app="tests.projects.no_such"))


def test_dash_a_comes_first(cli):
    done = cli("usage", "-A", "tests.projects.plain")
    assert "-A" in mistake(done)


COMMANDS = [
    (), ("usage",), ("stats",), ("serve",),
    ("config",), ("config", "get"), ("config", "set"), ("config", "reset"),
    ("config", "history"), ("config", "rollback"), ("pause",), ("resume",),
    ("tokens",), ("release",), ("purge",),
]  # fmt: skip


def test_a_forgotten_app_is_asked_for(cli):
    """What a command says to who left out ``-A``, and how it is called then."""
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    for command in (("usage",), ("config", "get")):
        done = subprocess.run(
            [sys.executable, "-m", "celery", "concurrency", *command],
            env=environment,
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert refusal(done).endswith(f"celery -A proj concurrency {' '.join(command)}")


def test_help_in_a_real_process(cli):
    """Also where Redis is away."""
    assert out(cli("--help", BROKER_URL=NOWHERE)).startswith("Usage: ")


def test_help_of_each(here):
    """Also where Redis is away."""
    helps = {command: out(here(*command, "--help", broker=NOWHERE)) for command in COMMANDS}
    for command, text in helps.items():
        assert text.startswith("Usage: "), command
        assert " ".join(("concurrency", *command)) in text
    for name in (
        *("usage", "stats", "config", "serve", "pause", "resume", "tokens", "release"),
        *("waiting", "cancel", "drain", "purge", "monitor"),
    ):
        assert re.search(rf"^  {name} ", helps[()], re.MULTILINE)
    for group in ((), ("config",)):  # what each of its commands does, in a line that is whole
        assert "..." not in helps[group].partition("Commands:")[2]
    for command, text in helps.items():
        prints_data = command not in [(), ("config",), ("serve",), ("release",)]
        assert ("--json" in text) == prints_data, command
    assert "7000" in helps[("serve",)]
    assert "127.0.0.1" in helps[("serve",)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("usage",),
        ("stats", "--json"),
        ("config", "get"),
        ("config", "set", "global_max=1"),
        ("config", "reset"),
        ("config", "history"),
        ("config", "rollback", "1"),
        ("pause", "global"),
        ("tokens",),
        ("release", "x"),
        ("purge", "--yes"),
    ],
)
def test_redis_away_is_a_line_that_says_what_to_look_at(here, arguments):
    said = refusal(here(*arguments, broker=NOWHERE))
    assert "127.0.0.1:1" in said
    assert "concurrency_redis_url" in said


def test_redis_away_in_a_real_process(cli):
    assert "concurrency_redis_url" in refusal(cli("usage", BROKER_URL=NOWHERE))


@pytest.mark.parametrize("command", ["usage", "monitor"])
def test_a_full_disk_below_the_output_is_a_line(redis_url, command):
    ours = [sys.executable, "-m", "celery", "-A", "tests.projects.plain", "concurrency", command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            ours, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


def test_columns_stand_below_each_other_in_chinese_too(capsys):
    print_table(("who", "how many"), [("租户", 1), ("tenant", 2)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["who     how many", "租户    1", "tenant  2"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"), (0.4, "0 s"), (59.6, "1 min"), (324, "5 min 24 s"), (3_605, "1 h"),
        (7_500, "2 h 5 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_a_duration_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize("arguments", [("usage",), ("serve", "--port", "0")])
def test_a_broker_that_is_not_redis_names_the_setting(cli, arguments):
    said = refusal(cli(*arguments, BROKER_URL="amqp://", RESULT_BACKEND="rpc://"))
    assert "concurrency_redis_url" in said


def test_the_broker_of_the_command_line_counts(cli, redis_url, limiter):
    """``celery -b URL`` is where the workers' broker is, so the tokens are there too."""
    limiter.config.update({"global_max": 6})
    done = subprocess.run(
        [
            *(sys.executable, "-m", "celery", "-A", "tests.projects.plain", "-b", redis_url),
            *("concurrency", "config", "get", "global_max"),
        ],
        env={**os.environ, "BROKER_URL": NOWHERE, "RESULT_BACKEND": NOWHERE},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert out(done) == "6\n"


# -- serving


def test_a_port_that_is_taken_is_refused(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(cli("serve", "--port", str(port)))
    assert str(port) in said
    assert "--port" in said


def test_a_host_that_is_none_is_refused(cli):
    done = cli("serve", "--host", "no-such-host.invalid", CONCURRENCY_TOKEN="secret")
    assert "can't listen on no-such-host.invalid" in refusal(done)


def test_serve_says_where_and_ends_with_ctrl_c(redis_url):
    with Serving(redis_url) as serving:
        url = f"http://127.0.0.1:{serving.port}/api/v1/concurrency"
        said = f"serving {url}, with a page at {serving.page}, end with Ctrl-C\n"
        assert serving.said == said
        with urllib.request.urlopen(f"{url}/config", timeout=20) as response:
            assert json.load(response) == {"success": True, "data": DEFAULTS}
            # Nobody needs to know what serves it.
            assert "Server" not in response.headers
        status, output, errors = serving.stop(signal.SIGINT)
    assert (status, output, "Traceback" in errors) == (0, "", False), errors


def test_serve_starts_without_redis_and_serves_when_it_comes():
    with Server() as server:
        server.kill()
        with Serving(server.url()) as serving:
            url = f"http://127.0.0.1:{serving.port}/api/v1/concurrency/usage"
            with pytest.raises(urllib.request.HTTPError) as away:
                urllib.request.urlopen(url, timeout=20)
            assert away.value.code == 503
            server.start()
            with urllib.request.urlopen(url, timeout=20) as response:
                assert json.load(response)["data"]["global"] == {"current": 0, "max": 0}
            assert "Traceback" not in serving.stop()[2]


# -- the seed's own commands


def blocks(heading, text=SEED):
    """Return the shell blocks below a heading of the seed, up to the next of its rank."""
    rank = heading.split(" ")[0]
    section = text.split(f"\n{heading}")[1].split(f"\n{rank} ")[0]
    return re.findall(r"```bash\n(.*?)```", section, re.DOTALL)


def commands(heading, program):
    """Return the commands of one program below a heading, as they are printed."""
    # A command ends before a comment, an empty line or the next command.
    parts = [re.split(rf"\n(?=#|\n|{program}\b)", block) for block in blocks(heading)]
    return [part.strip() for block in parts for part in block if part.strip().startswith(program)]


CURLS = commands("## 💡 使用场景", "curl")
PLATFORMS = DEFAULTS["platform_max"]
#: What is in force after each of them, from the defaults.
AFTER = [
    {"platform_max": {**PLATFORMS, "xiaohongshu": 3}},
    {"global_max": 20},
    {"global_max": 0, "platform_max": {**PLATFORMS, "xiaohongshu": 0}},
    {},
    {"account_max": 2},
    {"enabled": False},
]


def curl(command, port):
    """Run a command of the seed as it is printed, but for the port; return its answer."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    assert "localhost:7000" in command
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        ["sh", "-c", command.replace("localhost:7000", f"localhost:{port}")],
        env=env,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_five_scenarios_are_there():
    assert len(blocks("## 💡 使用场景")) == 5
    assert (
        len(CURLS) == len(AFTER) == sum(block.count("curl") for block in blocks("## 💡 使用场景"))
    )


@pytest.mark.parametrize("number", range(len(AFTER)))
@pytest.mark.parametrize("before", [{}, {"global_max": 9, "platform_max": {"xiaohongshu": 9}}])
def test_a_scenario_of_the_seed(serving, limiter, number, before):
    was = limiter.config.update(before).config.to_dict()
    answer = curl(CURLS[number], serving.port)
    expected = Config.of(was).merged(AFTER[number]).to_dict()
    if "reset" in CURLS[number]:
        expected, message = DEFAULTS, "并发配置已重置为默认值，已立即生效"
    else:
        message = "并发配置更新成功，已立即生效"
    assert answer == {"success": True, "data": expected, "message": message}
    assert limiter.config.sync().config.to_dict() == expected


def test_the_curls_of_the_seeds_troubleshooting(serving, limiter):
    lines = commands("## 🛠 故障排查", "curl")
    assert [line.rsplit("/", 1)[1] for line in lines] == ["usage", "config"]
    usage, config = (curl(line, serving.port)["data"] for line in lines)
    assert usage["global"] == {"current": 0, "max": 0}
    assert config == DEFAULTS


def redis_cli(line, port):
    """Run a line of the seed as it is printed, but for the port; return the lines it prints."""
    program, *arguments = shlex.split(line)
    done = subprocess.run(
        [program, "-p", str(port), *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.splitlines()


def redis_py(line, port):
    """Send what a line of the seed sends; return it as ``redis-cli`` would print it."""
    with Redis(
        port=port, protocol=2, single_connection_client=True, decode_responses=True
    ) as client:
        client.connection.send_command(*shlex.split(line)[1:])
        reply = client.connection.read_response()
    replies = reply if isinstance(reply, list) else [reply]
    return ["" if one is None else str(one) for one in replies]


@pytest.mark.parametrize("send", [redis_cli, redis_py])
def test_the_redis_cli_lines_of_the_seed(server, limiter, redis, send):
    """Each of them, in the order in which it is printed, beside one task that runs."""
    if send is redis_cli and not shutil.which("redis-cli"):
        pytest.skip("redis-cli is not installed; redis-py sends the same")
    granted = limiter.try_acquire("task1", {"platform": "douyin", "account": "账号ID"})
    held = ["task1", str(granted.expiry)]
    lines = re.findall(r"^redis-cli .*$", SEED, re.MULTILINE)
    answers = [send(line, server.port) for line in lines]
    assert dict(zip(lines, answers, strict=True)) == {
        'redis-cli ZCARD "concurrency:semaphore:global"': ["1"],
        'redis-cli ZCARD "concurrency:semaphore:platform:douyin"': ["1"],
        'redis-cli ZRANGE "concurrency:semaphore:account:账号ID" 0 -1 WITHSCORES': held,
        'redis-cli KEYS "concurrency:semaphore:*"': answers[3],
        'redis-cli ZRANGE "concurrency:semaphore:global" 0 -1 WITHSCORES': held,
        'redis-cli EVAL "redis.call(\'del\', KEYS[1])" 1 "concurrency:semaphore:global"': [""],
        'redis-cli GET "concurrency:config"': [redis.get("concurrency:config")],
        'redis-cli DEL "concurrency:semaphore:global"': ["0"],
        'redis-cli DEL "concurrency:semaphore:platform:douyin"': ["1"],
    }
    assert sorted(answers[3]) == [
        "concurrency:semaphore:account:账号ID",
        "concurrency:semaphore:global",
        "concurrency:semaphore:platform:douyin",
    ]
    assert json.loads(answers[6][0]) == DEFAULTS
    # What an operator deleted counts no more, and the release still works.
    assert limiter.usage().to_dict()["platforms"]["douyin"]["current"] == 0
    assert limiter.release("task1")


def test_the_monitoring_script_of_the_seed(serving, limiter, capsys):
    """As it is printed, with what it imports replaced so that it looks once and finds us."""
    limiter.config.update({"global_max": 10, "platform_max": {"douyin": 5}})
    limiter.try_acquire("1", {"platform": "douyin"})
    script = SEED.split("### 1. 实时监控脚本")[1].split("```python\n")[1].split("```")[0]

    class Enough(Exception):
        pass

    def get(url):
        with urllib.request.urlopen(url.replace("7000", str(serving.port)), timeout=20) as response:
            body = json.load(response)
        return types.SimpleNamespace(json=lambda: body)

    def sleep(seconds):
        raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "requests", types.SimpleNamespace(get=get))
        patch.setitem(sys.modules, "time", types.SimpleNamespace(sleep=sleep))
        with pytest.raises(Enough):
            exec(script, {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["🌐 全局: 1/10", "📱 douyin: 1/5"]
    assert len(printed) == 1 + len(PLATFORMS)
