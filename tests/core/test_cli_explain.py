"""``failsoft explain``: what would apply to one request, to whom, and why the rest would not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from failsoft import ConfigurationError, Penalty, cli, criticality, exempt, late, limit
from failsoft.cli import commands
from failsoft.exchange import METHODS, NOT_YET
from failsoft.inspection import Description, Trial, Tried
from failsoft.inspection.explanation import Explained, Explanation, explain
from failsoft.ratelimit.identity import digest
from tests.core.described import HERE, WHERE, described, opened, view_with
from tests.core.requests import FakeFacts, make_runtime


class Asks(FakeFacts):
    """A request whose user is known to code that fails."""

    def user(self) -> str | None:
        raise LookupError("no database")


def explained(
    *policies: Any,
    target: str = "/a",
    method: str = "GET",
    address: str | None = "192.0.2.1",
    user: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    said_late: str | None = None,
    application: dict[str, Any] | None = None,
    **settings: Any,
) -> Explanation:
    description = described(make_runtime(**{"limits": [], **settings}), *policies, **(application or {}))
    trial = Trial(method=method, target=target, address=address, user=user, headers=headers)
    return explain(description, trial, late=said_late)


def only(*policies: Any, **request: Any) -> Explained:
    """The one limit that there is."""
    (one,) = explained(*policies, **request).limits
    return one


def said(*policies: Any, **request: Any) -> list[tuple[str, bool | None, str]]:
    """Each limit by its quota, whether it applies, and why not."""
    return [(one.limit.quota, one.applies, one.why) for one in explained(*policies, **request).limits]


def test_what_applies() -> None:
    """A limit that applies says where it is declared, whom it counts, and its key, which is the one that a request uses."""
    policy = limit("9/minute", by=["user", "header:X-Key"], name="nine")
    one = only(policy, user="4 2", headers=(("X-Key", "secret"),))
    counts = f"user:4%202+header:x-key:{digest('secret')}"
    assert (True, "", counts) == (one.applies, one.why, one.counts)
    assert f"failsoft:1:rl:view:%2Fa:{HERE.replace('<', '%3C').replace('>', '%3E')}:9/60f:{{{counts}}}" == one.key
    assert ("nine", "user + header:X-Key", HERE) == (one.limit.name, one.limit.by, one.limit.source)
    assert WHERE == one.limit.where


def test_keys_are_those_of_requests() -> None:
    """The keys of an explanation are exactly those that the same request would charge."""
    runtime = make_runtime(
        limits=["100/day", "7/minute"], scopes=[{"name": "s", "limits": ["5/hour"], "prefix": "/a"}], hash_keys=True
    )
    policies = (limit("9/minute", per_method=True, by="user"), limit("9/hour", shared="all", penalty=Penalty()))
    facts = FakeFacts(view_with(*policies), route="/a", path="/a", user="u")
    exchange = runtime.begin(facts)
    charged = {
        key for flight in exchange.join(exchange.plan) for operation in flight.operations for key in operation.keys
    }
    explanation = explain(
        described(runtime, *policies), Trial(method="GET", target="/a", address="192.0.2.1", user="u")
    )
    assert charged == {one.key for one in explanation.limits}
    assert 6 == len(charged)


@pytest.mark.parametrize(
    ("policy", "request_", "why"),
    [
        (limit("9/minute", methods=["POST", "PUT"]), {}, "only for POST, PUT"),
        (limit("9/minute", when=lambda request: 0), {}, "when: lambda (test_cli_explain.py:{line}) said 0"),
        (limit(lambda request: None), {}, "lambda (test_cli_explain.py:{line}) said that there is no limit"),
        (limit("9/minute", cost=lambda request: 0), {}, "it costs nothing: lambda (test_cli_explain.py:{line}) said 0"),
        (
            limit("9/minute", by="header:X-Key", on_missing="exempt"),
            {},
            "the request lacks the identity that it counts",
        ),
        (
            limit("9/minute"),
            {"method": "OPTIONS", "headers": (("Origin", "x"), ("Access-Control-Request-Method", "POST"))},
            "it is a CORS preflight, which the setting exempt_preflights lets through",
        ),
    ],
)
def test_why_a_declared_limit_does_not_apply(policy: Any, request_: dict[str, Any], why: str) -> None:
    """A limit of the view that leaves the request alone says why."""
    one = only(policy, **request_)
    assert (False, None) == (one.applies, one.key)
    *others, expected = why.split("{line}") if "{line}" in why else ("", why)
    assert one.why.startswith("".join(others))
    assert one.why.endswith(expected)


def test_why_settings_do_not_apply() -> None:
    """Limits of the settings say what displaces them, and scopes what the request does not fit."""
    scopes = [
        {"name": "p", "limits": ["1/day"], "prefix": "/b"},
        {"name": "h", "limits": ["2/day"], "host": "a.test"},
        {"name": "g", "limits": ["3/day"], "group": "admin", "prefix": "/b"},
        {"name": "in", "limits": ["4/day"], "prefix": "/a"},
    ]
    settings: dict[str, Any] = {"limits": ["5/day"], "route_limits": ["6/day"], "scopes": scopes}
    outside = [
        ("1 per 86400 s", False, "the path does not begin with /b"),
        ("2 per 86400 s", False, "the host is 'b.test', not a.test"),
        ("3 per 86400 s", False, "the path does not begin with /b and the view is not in admin"),
    ]
    host = (("Host", "b.test"),)
    within = [("5 per 86400 s", True, ""), ("4 per 86400 s", True, "")]
    assert [*within, ("6 per 86400 s", True, ""), *outside] == said(headers=host, **settings)
    own = ("6 per 86400 s", False, "the view has limits of its own")
    found = said(limit("7/day"), headers=host, **settings)
    assert [*within, ("7 per 86400 s", True, ""), *outside, own] == found
    places = f"the view is exempt ({WHERE})"
    exempted = [(quota, False, places) for quota in ("5 per 86400 s", "4 per 86400 s", "6 per 86400 s")]
    assert [("7 per 86400 s", True, "")] == said(limit("7/day"), exempt, **settings)[:1]
    assert {*outside, *exempted} == set(said(exempt, headers=host, **settings))
    assert "the host is not given, not a.test" == said(**settings)[4][2]


def test_functions_that_fail() -> None:
    """A function that raises, or says nonsense, leaves open what depends on it, is named, and keeps nothing else from being told."""

    def broken(request: Any) -> Any:
        raise KeyError("tenant")

    async def slow(request: Any) -> str:
        return "acme"

    found = explained(
        limit("1/day", by=broken),
        limit("2/day", when=broken),
        limit(broken),
        limit("4/day", cost=broken, penalty=Penalty()),
        limit("5/day", cost=lambda request: -1),
        limit("6/day", by=slow),
        limit(lambda request: "nonsense"),
    ).limits
    name = "test_functions_that_fail.<locals>.broken raised KeyError: 'tenant'"
    by_quota = {one.limit.quota: one for one in found}
    for quota in ("1 per 86400 s", "2 per 86400 s", f"by {name.partition(' ')[0]}", "4 per 86400 s"):
        assert (name, None) == (by_quota[quota].why, by_quota[quota].key)
    assert [True, None] == [by_quota[quota].applies for quota in ("1 per 86400 s", "2 per 86400 s")]
    assert "its cost function returned -1" in by_quota["5 per 86400 s"].why
    assert "key:acme" == by_quota["6 per 86400 s"].counts
    assert any("'nonsense' is no limit" in one.why or "is no limit" in one.why for one in found)


def test_late_limits() -> None:
    """What is decided late says so, and what would have to be said for its key to be known."""

    def account(number: int) -> str:
        return str(number)

    policy = limit("9/minute", by=["ip", late(account)])
    one = only(policy)
    assert (True, True, None) == (one.applies, one.limit.late, one.key)
    assert one.why.endswith("account is asked with the view's arguments; say with --late what it returns")
    assert "ip:192.0.2.1+key:7" == only(policy, said_late="7").counts
    unknown = only(limit("9/minute", by="user"), application={"user": NOT_YET})
    assert (True, True, None) == (unknown.applies, unknown.limit.late, unknown.key)
    assert "decided late, when the framework knows who is asking; say with --user who that is" == unknown.why
    known = only(limit("9/minute", by="user"), application={"user": NOT_YET}, user="7")
    assert ("user:7", False) == (known.counts, known.limit.late)


def test_identities_that_are_missing() -> None:
    """Without its identity a limit counts by address, or refuses; without an address, that is asked for."""
    by_ip = only(limit("9/minute", by="user"))
    assert ("ip:192.0.2.1", "by address, since the request lacks the identity that it counts") == (
        by_ip.counts,
        by_ip.why,
    )
    refused = only(limit("9/minute", by="user", on_missing="refuse"))
    assert (True, True, None) == (refused.applies, refused.refuses, refused.key)
    nowhere = only(limit("9/minute"), address=None)
    assert (False, "the client's address is unknown: say it with --address") == (nowhere.refuses, nowhere.why)
    # Settings cannot be decided late, so for them a user who is not known yet is missing.
    assert "ip:192.0.2.1" == only(by="user", limits=["9/day"], application={"user": NOT_YET}).counts
    failed = only(limit("9/minute", by="user"), application={"facts": Asks})
    assert "asking who the user is raised LookupError: no database; say with --user who that is" == failed.why
    assert "user:7" == only(limit("9/minute", by="user"), application={"facts": Asks}, user="7").counts


def test_addresses_behind_proxies() -> None:
    """The address is the peer's, unless that is a trusted proxy that says otherwise."""
    forwarded = (("X-Forwarded-For", "198.51.100.4, 10.0.0.2"),)
    settings: dict[str, Any] = {"limits": ["9/day"], "trusted_proxies": ["10.0.0.0/8"], "headers": forwarded}
    assert ["198.51.100.4", "192.0.2.1"] == [
        explained(**settings | {"address": address}).address for address in ("10.0.0.1", "192.0.2.1")
    ]


def test_one_bucket_named_twice() -> None:
    """Two limits on one bucket are charged once, and the second says so."""
    twice = [limit("9/minute", shared="all"), limit("9/minute", shared="all", name="again")]
    first, second = explained(*twice).limits
    assert (first.key, "") == (second.key, first.why)
    assert f"one bucket with that from {HERE}, charged once" == second.why


def test_no_route() -> None:
    """Where no view serves a request, the settings' limits apply, and the framework's reason is told."""
    explanation = explained(target="/nowhere", limits=["9/day"], application={"route": None, "note": "404 Not Found"})
    assert ("404 Not Found", None, None) == (explanation.note, explanation.view, explanation.route)
    assert ["9 per 86400 s"] == [one.limit.quota for one in explanation.limits if one.applies]


def test_the_views_name() -> None:
    """A view is called by its name, also where arguments are bound to it."""
    runtime = make_runtime()
    view = view_with()

    @contextmanager
    def trial(asked: Trial) -> Iterator[Tried]:
        yield Tried(FakeFacts(partial(view)))

    explanation = explain(Description("Framework", runtime, (), trial), Trial(method="get", target="/"))
    assert (HERE, "GET") == (explanation.view, explanation.trial.method)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "G T"}, "no HTTP method"),
        ({"method": "got"}, r"^GOT is no HTTP method; did you mean GET\?"),
        ({"target": "http://a.test/"}, "no path"),
        ({"address": "localhost"}, "no address"),
    ],
)
def test_requests_that_are_none(wrong: dict[str, str], message: str) -> None:
    """What is no request is refused, and the message says what one looks like."""
    with pytest.raises(ConfigurationError, match=message):
        Trial(**{"method": "GET", "target": "/", **wrong})


@pytest.mark.parametrize("method", sorted(METHODS | {"PROPPATCH", "REPORT", "ORDERPATCH", "QUERY", "PURGE", "BREW"}))
def test_methods_that_are_meant(method: str) -> None:
    """Every usual method is one, and so is one that is like none of them, or registered."""
    assert method == Trial(method=method, target="/").method


def test_an_adapter_that_cannot() -> None:
    """An adapter that cannot make requests up is named."""
    with pytest.raises(ConfigurationError, match="adapter of Framework cannot"):
        explain(Description("Framework", make_runtime(), ()), Trial(method="GET", target="/"))


def test_functions_may_call_decorated_ones() -> None:
    """What the user's functions call is charged nothing and may be decorated."""

    @limit("1/day", shared="helper")
    def helper() -> str:
        return "x"

    assert "key:x" == only(limit("9/minute", by=lambda request: helper())).counts


def test_nothing_is_charged(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An explanation leaves the store as it was, and remains the same however often it is asked for."""
    with opened(redis_url, limit("5/minute", penalty=Penalty()), limits=["9/day"]) as (description, _):
        monkeypatch.setattr(commands, "describe", lambda app: description)
        shown = []
        for _ in range(3):
            assert 0 == cli.main(["explain", "GET", "/a", "--address", "192.0.2.1"], app=description)
            shown.append(capsys.readouterr().out)
        assert 1 == len(set(shown))
        assert "left    5 of 5" in shown[0]
        assert shown[0].endswith("now: admitted\n")


def test_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON: the request, each limit with its verdict, and what would become of the request."""
    runtime = make_runtime(limits=["9/day"], by="user", on_missing="refuse")
    monkeypatch.setattr(commands, "describe", lambda app: described(runtime, limit("5/minute", methods=["POST"])))
    arguments = [
        "explain",
        "get",
        "/a?b=c",
        "--address",
        "192.0.2.1",
        "--header",
        "Host: a.test",
        "--json",
        "--no-store",
    ]
    assert 0 == cli.main(arguments, app="anything")
    found = json.loads(capsys.readouterr().out)
    assert {
        "framework": "Framework",
        "method": "GET",
        "target": "/a?b=c",
        "route": "/a",
        "view": HERE,
        "note": "",
        "peer": "192.0.2.1",
        "address": "192.0.2.1",
        "user": None,
        "enabled": True,
        "criticality": None,
        "verdict": {"outcome": "refused", "by": ["9-per-day"]},
    } == {key: value for key, value in found.items() if key != "limits"}
    first, second = found["limits"]
    assert (True, True, None, None) == tuple(first[key] for key in ("applies", "refuses", "key", "left"))
    assert (False, "only for POST") == (second["applies"], second["why"])


def test_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: who asks for what, each limit with whom it counts, and the rest with its reason."""
    monkeypatch.chdir(tmp_path)
    runtime = make_runtime(limits=["9/day"], trusted_proxies=["10.0.0.1"])
    view = limit("5/minute", methods=["POST"]), limit("4/minute", by=late(str)), limit("3/minute", cost=2, by="user")
    monkeypatch.setattr(commands, "describe", lambda app: described(runtime, *view))
    arguments = ["GET", "/a", "--address", "10.0.0.1", "--header", "X-Forwarded-For: 192.0.2.7", "--user", "me"]
    assert 0 == cli.main(["explain", *arguments], app="anything")
    place = f"{HERE} ({WHERE})"
    key = f"failsoft:1:rl:view:%2Fa:{HERE.replace('<', '%3C').replace('>', '%3E')}:3/60f:{{user:me}}"
    assert [
        f"GET /a: /a, served by {HERE}",
        "address 192.0.2.7 (peer 10.0.0.1), user me",
        "",
        "9-per-day: 9 per 86400 s by ip, from limits, on outage local",
        "    counts  ip:192.0.2.7",
        "    key     failsoft:1:rl:app:9/86400f:{ip:192.0.2.7}",
        "    left    unknown",
        "",
        f"3-per-minute: 3 per 60 s by user, from {place}, on outage local, cost 2",
        "    counts  user:me",
        f"    key     {key}",
        "    costs   2",
        "    left    unknown",
        "",
        f"4-per-minute: 4 per 60 s by str, from {place}, on outage local, late",
        "    unknown str is asked with the view's arguments; say with --late what it returns",
        "",
        "does not apply:",
        f"  5 per 60 s by ip, from {place}: only for POST",
        "",
        "! memory:// counts in each process by itself",
        "",
        "now: not known",
    ] == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("policies", "route", "path", "expected"),
    [
        ((criticality("sheddable_plus"),), "/a", "/a", "sheddable_plus"),
        ((), "pay/now", "/pay/now", "critical_plus"),
        ((), "/a", "/a", "critical"),
        ((), None, "/pay/later", "critical_plus"),
        ((), None, "/readyz", "exempt"),
    ],
)
def test_criticality(
    policies: Any,
    route: str | None,
    path: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where load is shed, the class of the request is told; where no route is known, its path decides."""
    runtime = make_runtime(limits=[], shed=True, criticality={"/pay": "critical_plus"})
    monkeypatch.setattr(commands, "describe", lambda app: described(runtime, *policies, route=route))
    assert 0 == cli.main(["explain", "GET", path, "--address", "192.0.2.1"], app="anything")
    assert f"criticality {expected}" in capsys.readouterr().out.splitlines()
    runtime.enabled = False
    assert 0 == cli.main(["explain", "GET", path, "--address", "192.0.2.1"], app="anything")
    assert "criticality" not in capsys.readouterr().out


def test_turned_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where limits are turned off, that is what is said."""
    runtime = make_runtime(limits=["9/day"], enabled=False)
    monkeypatch.setattr(commands, "describe", lambda app: described(runtime))
    assert 0 == cli.main(["explain", "GET", "/a"], app="anything")
    assert ["address unknown", "enabled is false: no limit is enforced", "", "now: admitted"] == (
        capsys.readouterr().out.splitlines()[1:]
    )


@pytest.mark.parametrize("header", ["Host", ": x"])
def test_headers_that_are_none(
    header: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A header field without a name or a colon is a mistake in the call."""
    monkeypatch.setattr(commands, "describe", lambda app: described(make_runtime()))
    assert 2 == cli.main(["explain", "GET", "/", "--header", header], app="anything")
    assert "is no header field" in capsys.readouterr().err
