"""``failsoft peek``, ``reset`` and ``refund``: the counters of one subject, on a real server."""

import io
import json
import sys
from typing import Any

import pytest
import redis

from failsoft import Penalty, Settings, cli, limit
from failsoft.cli import commands
from failsoft.inspection import Description, Trial
from failsoft.inspection.counters import peek, refund, reset
from failsoft.inspection.explanation import explain
from failsoft.quota import ALGORITHMS
from failsoft.runtime import Runtime
from tests.core.described import described, opened
from tests.servers import Valkey, free_port, poll

pytestmark = pytest.mark.broad

REQUEST = ["GET", "/a", "--address", "192.0.2.1"]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the command line be about a description."""

    def use(description: Description) -> None:
        monkeypatch.setattr(commands, "describe", lambda app: description)

    return use


def run(*arguments: str, capsys: pytest.CaptureFixture[str], expected: int = 0) -> Any:
    """What a command prints as JSON."""
    assert expected == cli.main([*arguments, "--json"], app="anything")
    return json.loads(capsys.readouterr().out)


def left(found: Any) -> dict[str, int]:
    """What is left of each limit."""
    return {one["name"]: one["left"]["remaining"] for one in found["limits"]}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_subject(algorithm: str, redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """With every algorithm: what is left is told, units come back, and everything is forgotten, for this subject alone."""
    with opened(redis_url, limit("5/minute; 9/hour", name="own", algorithm=algorithm)) as (description, request):
        use(description)
        assert [200] * 3 == request(3)
        assert [200] * 5 == request(5, address="192.0.2.2")
        assert {"own-5-per-minute": 2, "own-9-per-hour": 6} == left(run("peek", *REQUEST, capsys=capsys))
        found = run("refund", *REQUEST, "--limit", "own-5-per-minute", "--units", "2", capsys=capsys)
        assert {"own-5-per-minute": 4} == left(found)
        assert 2 == found["limits"][0]["left"]["before"]
        assert [200] * 4 + [429] == request(5)
        found = run("reset", *REQUEST, "--yes", capsys=capsys)
        assert {"own-5-per-minute": 5, "own-9-per-hour": 9} == left(found)
        assert [0, 2] == [one["left"]["before"] for one in found["limits"]]
        assert [200] * 5 == request(5)
        assert [429] == request(address="192.0.2.2")


def test_penalties(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever is blocked is told so; a refund leaves that as it is, and a reset ends it."""
    with opened(redis_url, limit("1/minute", penalty=Penalty(after=2, block="5m"))) as (description, request):
        use(description)
        assert [200, 429] == request(2)
        assert 0 == cli.main(["peek", *REQUEST], app="anything")
        out = capsys.readouterr().out
        assert "left    0 of 1; would pass in " in out
        assert "left    1 breaches before a block; those so far are forgotten in " in out
        assert [429] == request()
        assert ["1-per-minute"] == list(left(run("refund", *REQUEST, capsys=capsys)))
        assert 0 == cli.main(["explain", *REQUEST], app="anything")
        out = capsys.readouterr().out
        assert "    blocked for " in out
        assert out.endswith("now: refused by penalty\n")
        assert 0 == cli.main(["reset", *REQUEST, "--limit", "penalty", "--yes"], app="anything")
        assert "left    2 breaches before a block, before 0" in capsys.readouterr().out
        assert 0 == cli.main(["explain", *REQUEST], app="anything")
        assert capsys.readouterr().out.endswith("now: admitted\n")


def test_a_shadow_refuses_nobody(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A shadow that is used up does not make the verdict one of refusal."""
    with opened(redis_url, limit("1/minute", shadow=True)) as (description, request):
        use(description)
        assert [200, 200] == request(2)
        found = run("explain", *REQUEST, capsys=capsys)
        assert (False, {"outcome": "admitted", "by": []}) == (found["limits"][0]["left"]["passes"], found["verdict"])


def test_a_cost_that_does_not_fit(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left may be too little for this request."""
    with opened(redis_url, limit("5/minute", cost=3)) as (description, request):
        use(description)
        assert [200] == request()
        found = run("explain", *REQUEST, capsys=capsys)
        assert (3, False, 2) == (
            found["limits"][0]["costs"],
            found["limits"][0]["left"]["passes"],
            found["limits"][0]["left"]["remaining"],
        )
        assert {"outcome": "refused", "by": ["5-per-minute"]} == found["verdict"]


def test_choosing(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit is chosen by its name or by where it is from; a name that there is not lists those that there are."""
    with opened(redis_url, limit("5/minute", name="own"), limits=["9/day"]) as (description, _):
        use(description)
        assert ["9-per-day"] == list(left(run("peek", *REQUEST, "--limit", "limits", capsys=capsys)))
        assert 2 == cli.main(["peek", *REQUEST, "--limit", "mine"], app="anything")
        error = capsys.readouterr().err
        assert "no limit 'mine' applies to this request; there are: 9-per-day, limits, own, " in error


def test_one_bucket_is_changed_once(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Two limits on one bucket are one counter."""
    twice = limit("5/minute", shared="all"), limit("5/minute", shared="all", name="again")
    with opened(redis_url, *twice) as (description, request):
        use(description)
        request(4)
        assert {"5-per-minute": 3} == left(run("refund", *REQUEST, "--units", "2", capsys=capsys))


def test_two_stores(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Each limit is looked for where it is counted."""
    with (
        Valkey() as other,
        opened(redis_url, limit("5/minute", store="other"), limits=["9/day"], stores={"other": other.url}) as (
            description,
            request,
        ),
    ):
        use(description)
        poll(lambda: request() and left(run("peek", *REQUEST, capsys=capsys))["5-per-minute"] < 5)
        run("reset", *REQUEST, "--yes", capsys=capsys)
        assert {"9-per-day": 9, "5-per-minute": 5} == left(run("peek", *REQUEST, capsys=capsys))
        other.kill()
        found = run("peek", *REQUEST, capsys=capsys, expected=1)
        assert [True, False] == [one["left"] is not None for one in found["limits"]]
        assert f"the store 'other' ({other.url}) gives no answer" in found["limits"][1]["trouble"]


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "status", "remaining"), [("y\n", 0, 5), ("\n", 1, 4), ("no\n", 1, 4)])
def test_confirmation(
    typed: str,
    status: int,
    remaining: int,
    redis_url: str,
    use: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Keys are named and forgotten only if whoever is at the terminal says yes."""
    with opened(redis_url, limit("5/minute")) as (description, request):
        use(description)
        request()
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        assert status == cli.main(["reset", *REQUEST], app="anything")
        shown = capsys.readouterr()
        assert ":5/60f:{ip:192.0.2.1}\nForget this? [y/N] " in shown.err
        assert ("nothing was changed" in shown.out) == bool(status)
        assert {"5-per-minute": remaining} == left(run("peek", *REQUEST, capsys=capsys))


def test_nobody_to_confirm(
    redis_url: str, use: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal a reset has to be confirmed in the call."""
    with opened(redis_url, limit("5/minute")) as (description, _):
        use(description)
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        assert 2 == cli.main(["reset", *REQUEST], app="anything")
        assert "say --yes" in capsys.readouterr().err


def test_memory_of_processes(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Who changes counters is told that processes remember refusals, unless they do not."""
    with opened(redis_url, limit("5/minute"), deny_cache=1.5) as (description, _):
        use(description)
        for command in (["reset", "--yes"], ["refund"]):
            assert 0 == cli.main([command[0], *REQUEST, *command[1:]], app="anything")
            assert "for at most 1.5 s (deny_cache)" in capsys.readouterr().out
    with opened(redis_url, limit("5/minute"), deny_cache=0) as (description, _):
        use(description)
        assert [] == run("refund", *REQUEST, capsys=capsys)["notes"]


def test_no_answer(use: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is away is told once, with its reason, and the exit status says so."""
    monkeypatch.setattr("failsoft.inspection.counters.PATIENCE", 0.2)
    url = f"redis://:sesame@127.0.0.1:{free_port()}/0"
    runtime = Runtime(Settings.load({"store": url, "limits": ["9/day", "8/hour"]}, environ={}))
    use(described(runtime))
    try:
        for command in (["peek"], ["reset", "--yes"], ["refund"], ["explain"]):
            assert 1 == cli.main([command[0], *REQUEST, *command[1:]], app="anything")
            out = capsys.readouterr().out
            assert (2, 1, False) == (out.count("left    unknown"), out.count("Connection refused"), "sesame" in out)
    finally:
        runtime.close()


def test_memory_cannot_be_looked_at(use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Counters in the memory of other processes cannot be seen, and the exit status says so."""
    runtime = Runtime(Settings.load({"limits": ["9/day"]}, environ={}))
    use(described(runtime))
    assert 1 == cli.main(["peek", *REQUEST], app="anything")
    assert "! memory:// counts in each process by itself" in capsys.readouterr().out


def test_what_cannot_be_found(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit whose subject is not known is shown, and the exit status says that something is open."""
    with opened(redis_url, limits=["9/day"]) as (description, _):
        use(description)
        found = run("peek", "GET", "/a", capsys=capsys, expected=1)
        assert "the client's address is unknown: say it with --address" == found["limits"][0]["why"]
        assert 0 == cli.main(["peek", *REQUEST], app="anything")
    with opened(redis_url) as (description, _):
        use(description)
        capsys.readouterr()
        assert 0 == cli.main(["peek", *REQUEST], app="anything")
        assert capsys.readouterr().out.endswith("no limit applies\n")


def test_an_error_of_the_servers(redis_url: str, use: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What the server answers with an error is told, and nothing is made up."""
    with opened(redis_url, limits=["9/day"], algorithm="moving-window") as (description, _):
        use(description)
        trial = Trial(method="GET", target="/a", address="192.0.2.1")
        limits = explain(description, trial).limits
        with redis.Redis.from_url(redis_url) as client:
            client.delete(str(limits[0].key))
            client.hset(str(limits[0].key), "a", "b")
            client.pexpire(str(limits[0].key), 60_000)
        for standing in (
            *peek(description.runtime, limits),
            *refund(description.runtime, limits, 1),
        ):
            assert "the store answered with an error: " in standing.trouble
        (forgotten,) = reset(description.runtime, limits)
        assert ("", 9) == (forgotten.trouble, forgotten.remaining)
