"""Settings: the same keys from every source, every mistake at once, no secret shown."""

import copy
import json
import pickle
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import limits
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft import Quota, hashed, late
from failsoft.errors import ConfigurationError
from failsoft.settings import OPTIONS, Scope, SettingProblem, Settings, SettingsError, mask
from tests.core.texts import any_text

SECRET = "correct horse battery"
SEALING = "a secret of 32 characters: plain"
OLDER = "another one with ',' and ';' in it"
API = Scope(name="api", prefix="/api", limits=("9/minute",))
GREEDY = Scope(name="greedy", group="greedy", limits=("2000000/second",))

EXAMPLES: dict[str, list[tuple[Any, Any]]] = {
    "store": [
        ("memory://", "memory://"),
        ("REDIS://h:6379/0", "redis://h:6379/0"),
        ("redis://u:p%40w@h/1?deadline=0.2", "redis://u:p%40w@h/1?deadline=0.2"),
        ("unix:///run/valkey.sock?db=2", "unix:///run/valkey.sock?db=2"),
        ("embedded://", "embedded://"),
    ],
    "prefix": [("shop", "shop"), ("a" * 64, "a" * 64), ("Ä-1_x", "Ä-1_x")],
    "deadline": [(0.01, 0.01), (5, 5.0), ("50ms", 0.05), ("0.2", 0.2), (timedelta(seconds=1), 1.0)],
    "limits": [
        ("100/minute; 2000/day", ("100/minute; 2000/day",)),
        (["100/minute", " 5/second "], ("100/minute", "5/second")),
        ([], ()),
    ],
    "route_limits": [("5/second", ("5/second",)), (("5/second",), ("5/second",))],
    "by": [("user", "user"), (["ip", "header:x-tenant"], ("ip", "header:x-tenant")), (str.upper, str.upper)],
    "on_outage": [("open", "open"), ("closed", "closed"), ("local", "local")],
    "on_missing": [("ip", "ip"), ("exempt", "exempt"), ("refuse", "refuse")],
    "workers": [(1, 1), ("4", 4)],
    "replicas": [(3, 3), ("2", 2)],
    "local_share": [(None, None), (1, 1.0), (0.25, 0.25), ("0.5", 0.5)],
    "trusted_proxies": [
        (["10.0.0.0/8", "unix", "FD00::/8"], ("10.0.0.0/8", "unix", "fd00::/8")),
        ("10.0.0.1, 10.0.0.2", ("10.0.0.1", "10.0.0.2")),
        ([ip_network("10.0.0.0/8"), ip_address("::1"), "10.0.0.0/8"], ("10.0.0.0/8", "::1")),
        (["::ffff:10.0.0.0/104"], ("10.0.0.0/8",)),
        ((), ()),
    ],
    "forwarded_header": [("x-forwarded-for", "x-forwarded-for"), ("forwarded", "forwarded")],
    "ipv6_prefix": [(32, 32), ("128", 128)],
    "hash_keys": [(True, True), ("yes", True), ("off", False), ("1", True)],
    "secret": [(SECRET, SECRET), (None, None), ("s" * 16, "s" * 16)],
    "algorithm": [(one, one) for one in ("fixed-window", "gcra", "sliding-window-counter", "moving-window")],
    "aligned": [(True, True), ("False", False)],
    "headers": [("draft", "draft"), ("legacy", "legacy"), ("both", "both"), ("off", "off")],
    "retry_after_jitter": [(0, 0.0), (1, 1.0), ("0.3", 0.3)],
    "enabled": [(False, False), ("true", True)],
    "outside_request": [("allow", "allow"), ("error", "error")],
    "exempt_preflights": [(False, False)],
    "degraded_header": [(False, False)],
    "memory_keys": [(100, 100), (10_000_000, 10_000_000)],
    "max_connections": [(1, 1), (10_000, 10_000)],
    "stores": [
        ({}, ()),
        ({"bursts": "memory://"}, (("bursts", "memory://"),)),
        ('{"bursts": "redis://b"}', (("bursts", "redis://b"),)),
    ],
    "scopes": [
        ([], ()),
        ([{"name": "api", "prefix": "/api/", "limits": "9/minute"}], (API,)),
        ('[{"name": "api", "prefix": "/api", "limits": ["9/minute"]}]', (API,)),
        ([API], (API,)),
    ],
    "deny_cache": [(0, 0.0), ("500ms", 0.5), (2, 2.0)],
    "lease": [(0, 0), (2, 2), ("50", 50), (10_000, 10_000)],
    "near_limit": [(1, 1.0), ("0.5", 0.5)],
    "shed": [(True, True), ("on", True), ("false", False)],
    "shed_min": [(1, 1), ("30", 30), (10_000, 10_000)],
    "shed_max": [(1, 1), ("500", 500), (10_000, 10_000)],
    "criticality": [
        ({}, ()),
        ({"/pay": "critical_plus", "*": "sheddable"}, (("/pay", "critical_plus"), ("*", "sheddable"))),
        ('{"/reports/{id}": "exempt"}', (("/reports/{id}", "exempt"),)),
        ((("/a", "sheddable_plus"),), (("/a", "sheddable_plus"),)),
    ],
    "queue_header": [(None, None), ("X-Request-Start", "X-Request-Start")],
    "key_style": [("slowapi", "slowapi"), ("flask-limiter", "flask-limiter")],
    "sessions": [(True, True), ("on", True), ("no", False)],
    "session_store": [("default", "default"), ("sessions", "sessions")],
    "session_cookie": [("session", "session"), ("sid.1", "sid.1"), ("a" * 64, "a" * 64), ("__Hos", "__Hos")],
    "session_idle": [(60, 60.0), ("15m", 900.0), ("400d", 34_560_000.0)],
    "session_absolute": [("1m", 60.0), (timedelta(hours=8), 28_800.0), ("400d", 34_560_000.0)],
    "session_touch": [(0, 0.0), ("1h", 3600.0)],
    "session_grace": [(0, 0.0), ("1m", 60.0)],
    "session_cap": [(0, 0), ("5", 5), (1000, 1000)],
    "session_bytes": [(1024, 1024), ("4096", 4096), (1_048_576, 1_048_576)],
    "session_encrypt": [(True, True), ("false", False)],
    "session_wait": [(0, 0), ("1", 1), (5, 5)],
    "session_on_outage": [("refuse", "refuse"), ("empty", "empty")],
    "session_snapshot": [(0, 0.0), ("30s", 30.0), ("5m", 300.0)],
    "session_snapshot_keys": [
        ([], ()),
        ("locale", ("locale",)),
        (["locale", "_user_id", "locale"], ("locale", "_user_id")),
        (("Ä" * 64,), ("Ä" * 64,)),
    ],
    "session_import": [(one, one) for one in ("off", "flask-session", "django-cache", "django-redis")],
    "session_import_prefix": [(None, None), ("session:", "session:"), (":1:x y{" + "a" * 193, ":1:x y{" + "a" * 193)],
    "cookie_secure": [(True, True), ("0", False)],
    "cookie_httponly": [(False, False)],
    "cookie_domain": [
        (None, None),
        ("Example.com", "example.com"),
        (".shop.example", "shop.example"),
        ("localhost", "localhost"),
        (f"{'a' * 63}.xn--4ca", f"{'a' * 63}.xn--4ca"),
    ],
    "cookie_path": [("/", "/"), ("/shop", "/shop"), ("/" + "a" * 1023, "/" + "a" * 1023)],
    "cookie_samesite": [("lax", "lax"), ("strict", "strict"), ("none", "none")],
    "cookie_partitioned": [(True, True)],
    "secret_fallbacks": [([], ()), (SEALING, (SEALING,)), ((SEALING, OLDER, SEALING), (SEALING, OLDER))],
}
"""What may be given for each setting, and what it becomes."""

BESIDE: dict[str, dict[str, Any]] = {
    "sessions": {"secret": SEALING, "store": "redis://h"},
    "session_store": {"stores": (("sessions", "redis://b"),)},
    "key_style": {"hash_keys": False},
    "shed_min": {"shed_max": 10_000},
    "shed_max": {"shed_min": 1},
    "session_idle": {"session_absolute": 34_560_000.0, "session_touch": 0.0},
    "session_absolute": {"session_idle": 60.0, "session_touch": 0.0},
    "cookie_samesite": {"cookie_secure": True},
    "cookie_partitioned": {"cookie_secure": True},
}
"""What some of these need beside them."""

MISTAKES: dict[str, list[tuple[Any, str]]] = {
    "store": [
        (None, "1"),
        (b"redis://h", "1"),
        ("", "2"),
        ("localhost:6379", "2"),
        ("http://h", "2"),
        ("memory://x", "2"),
    ],
    "prefix": [
        (1, "1"),
        ("", "2"),
        ("a" * 65, "2"),
        ("a b", "2"),
        ("a:b", "2"),
        ("{a}", "2"),
        ("a\n", "2"),
        ("\ud800", "2"),
    ],
    "deadline": [
        (None, "1"),
        (True, "1"),
        (0.009, "2"),
        (5.1, "2"),
        ("6s", "2"),
        ("soon", "2"),
        (float("nan"), "2"),
        (10**400, "2"),
    ],
    "limits": [
        (None, "1"),
        (10, "1"),
        (True, "1"),
        (b"5/s", "1"),
        ({"5/second": 1}, "1"),
        ({"5/second"}, "1"),
        ([["5/second"]], "1"),
        (object(), "1"),
        ("", "2"),
        ([" "], "2"),
        (";", "2"),
        ("1000/minut", "2"),
        (["5/second", "two/minute"], "2"),
        ("1 per 1000000 year", "2"),
    ],
    "route_limits": [(1.5, "1"), (iter(["5/second"]), "1"), ("", "2"), ("0/minute", "2")],
    "by": [
        (None, "1"),
        (1, "1"),
        ("", "2"),
        ([], "2"),
        (["ip", None], "1"),
        ("a\x00", "2"),
        ("usr", "2"),
        ("header:", "2"),
        ("header:X Key", "2"),
        (["ip", "usr"], "2"),
        ([str.upper, str.lower], "2"),
        (late(str.upper), "1"),
        ([late(str.upper)], "1"),
        (lambda: "a", "2"),
        (["ip", lambda request, more: "a"], "2"),
        (hashed(lambda: "a"), "2"),
    ],
    "on_outage": [(None, "1"), (False, "1"), ("OPEN", "2"), ("", "2")],
    "on_missing": [(1, "1"), ("user", "2")],
    "workers": [(None, "1"), (True, "1"), (1.0, "1"), ("two", "1"), (0, "2"), (-1, "2"), ("0", "2")],
    "replicas": [([], "1"), (0, "2")],
    "local_share": [
        (False, "1"),
        ("half", "1"),
        (0, "2"),
        (1.01, "2"),
        (float("nan"), "2"),
        (float("inf"), "2"),
        (-1, "2"),
    ],
    "trusted_proxies": [(None, "1"), (1, "1"), ([1], "1"), (["10.0.0.1/8"], "2"), ("*", "2"), (["proxy.example"], "2")],
    "forwarded_header": [(None, "1"), ("both", "2"), ("X-Forwarded-For", "2")],
    "ipv6_prefix": [(64.0, "1"), (31, "2"), (129, "2")],
    "hash_keys": [(None, "1"), (1, "1"), ("maybe", "1"), ("", "1")],
    "secret": [(1234567890123456, "1"), (b"x" * 16, "1"), ("", "2"), ("s" * 15, "2"), ("\ud800" * 16, "2")],
    "algorithm": [(None, "1"), ("sliding", "2")],
    "aligned": [(0, "1")],
    "headers": [(False, "1"), ("on", "2")],
    "retry_after_jitter": [(None, "1"), (True, "1"), (-0.1, "2"), (1.1, "2")],
    "enabled": [(None, "1"), (1, "1")],
    "outside_request": [(None, "1"), ("ignore", "2")],
    "exempt_preflights": [("", "1")],
    "degraded_header": [(2, "1")],
    "memory_keys": [("many", "1"), (99, "2"), (10_000_001, "2")],
    "max_connections": [(None, "1"), (0, "2"), (10_001, "2")],
    "stores": [
        (None, "1"),
        ("redis://b", "1"),
        ("{", "2"),
        ({"default": "redis://b"}, "2"),
        ({"a b": "redis://b"}, "2"),
        ({"b": 1}, "1"),
        ({"b": "reddis://b"}, "2"),
    ],
    "scopes": [
        (None, "1"),
        (["/api"], "1"),
        ("[", "2"),
        ([{"prefix": "/api", "limits": "9/minute"}], "2"),
        ([{"name": "api", "prefix": "/api"}], "2"),
        ([{"name": "api", "limits": "9/minute"}], "2"),
        ([{"name": "api", "limits": "9/minute", "prefix": "api"}], "2"),
        ([{"name": "api", "limits": "9/minute", "prefix": "/"}], "2"),
        ([{"name": "api", "limits": "9/minute", "prefix": "/api/*"}], "2"),
        ([{"name": "api", "limits": "9/minute", "prefix": "/{tenant}/api"}], "2"),
        ([{"name": "api", "limits": "9/minute", "prefix": "/<tenant>"}], "2"),
        ([{"name": "api", "limits": "9/minute", "host": "a:80"}], "2"),
        ([{"name": "api", "limits": "9/minute", "host": "a.*"}], "2"),
        ([{"name": "api", "limits": "9/minute", "prefx": "/api"}], "2"),
        ([{"name": "api", "limits": "9/minute", "group": "a", "on_outage": "opened"}], "2"),
        ([{"name": "api", "limits": "9/minute", "group": "a", "store": ""}], "2"),
        ([{"name": "api", "limits": "9/minut", "group": "a"}], "2"),
        ([Scope(name="api", limits=("9/minut",), group="a")], "2"),
        ([Scope(name="api", limits=("9/minute",), group="a", by="usr")], "2"),
        ([API, API], "2"),
    ],
    "deny_cache": [(None, "1"), (2.1, "2")],
    "lease": [(None, "1"), (1, "2"), (10_001, "2")],
    "near_limit": [(None, "1"), (0, "2"), (1.1, "2")],
    "shed": [(None, "1"), (1, "1"), ("maybe", "1")],
    "shed_min": [(None, "1"), (0, "2"), (10_001, "2")],
    "shed_max": [(True, "1"), (0, "2"), (10_001, "2")],
    "criticality": [
        (None, "1"),
        (["/pay"], "1"),
        (("/pay",), "1"),
        ("/pay", "2"),
        ({"pay": "critical"}, "2"),
        ({"/pay\n": "critical"}, "2"),
        ({1: "critical"}, "2"),
        ({"/pay": "critcal"}, "2"),
        ({"/pay": None}, "2"),
    ],
    "queue_header": [(1, "1"), ("", "2"), ("X Request", "2"), ("a" * 65, "2"), ("X-Ä", "2")],
    "key_style": [(None, "1"), ("flask_limiter", "2")],
    "sessions": [(None, "1"), (1, "1")],
    "session_store": [(None, "1"), ("", "2"), ("a b", "2"), ("redis://h", "2")],
    "session_cookie": [
        (None, "1"),
        ("", "2"),
        ("a b", "2"),
        ("a=b", "2"),
        ("a;", "2"),
        ("ä", "2"),
        ("a\n", "2"),
        ("a" * 65, "2"),
        ("__Host-session", "2"),
        ("__secure-session", "2"),
    ],
    "session_idle": [(None, "1"), (59, "2"), ("401d", "2")],
    "session_absolute": [(True, "1"), (59, "2"), ("401d", "2")],
    "session_touch": [(None, "1"), (-1, "2"), (3601, "2")],
    "session_grace": [([], "1"), (61, "2")],
    "session_cap": [(1.0, "1"), (-1, "2"), (1001, "2")],
    "session_bytes": [("64k", "1"), (1023, "2"), (1_048_577, "2")],
    "session_encrypt": [("AES", "1")],
    "session_wait": [(None, "1"), (-1, "2"), (6, "2")],
    "session_on_outage": [(None, "1"), ("open", "2")],
    "session_snapshot": [(None, "1"), (301, "2")],
    "session_snapshot_keys": [
        (None, "1"),
        ([1], "1"),
        ({"a"}, "1"),
        ("", "2"),
        (["a b"], "2"),
        ("a,b", "2"),
        (["a;"], "2"),
        (["a\n"], "2"),
        (["a" * 65], "2"),
    ],
    "session_import": [(False, "1"), ("flask_session", "2")],
    "session_import_prefix": [(1, "1"), ("", "2"), ("a\n", "2"), ("a" * 201, "2")],
    "cookie_secure": [(None, "1")],
    "cookie_httponly": [(1, "1")],
    "cookie_domain": [
        (1, "1"),
        ("", "2"),
        ("..example.com", "2"),
        ("example.com:80", "2"),
        ("https://example.com", "2"),
        ("example.com.", "2"),
        ("-a.example", "2"),
        ("münchen.example", "2"),
        ("example.com\n", "2"),
        ("a" * 64, "2"),
        (".".join(["a" * 63] * 4), "2"),
    ],
    "cookie_path": [
        (None, "1"),
        ("", "2"),
        ("shop", "2"),
        ("/a;b", "2"),
        ("/a b", "2"),
        ("/ä", "2"),
        ("/\n", "2"),
        ("/" + "a" * 1024, "2"),
    ],
    "cookie_samesite": [(None, "1"), ("Lax", "2")],
    "cookie_partitioned": [(None, "1")],
    "secret_fallbacks": [
        (None, "1"),
        (b"s" * 32, "1"),
        ({SEALING}, "1"),
        ([None], "1"),
        ([SEALING, 1], "1"),
        ("", "2"),
        ([SEALING, "s" * 15], "2"),
    ],
}
"""What may not: 1, its kind is wrong; 2, its range is."""

GOOD = [(key, given, expected) for key, examples in EXAMPLES.items() for given, expected in examples]
BAD = [(key, given, digit) for key, examples in MISTAKES.items() for given, digit in examples]


@pytest.fixture(autouse=True)
def no_web_concurrency(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the environment it runs in."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


def problems_of(mapping: Any, source: str = "FAILSOFT") -> tuple[SettingProblem, ...]:
    """What is wrong with `mapping`."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(mapping, source)
    return caught.value.problems


def test_defaults() -> None:
    """Without any setting the defaults hold, and they are what the options say."""
    defaults = {
        "store": "memory://",
        "prefix": "failsoft",
        "deadline": 0.1,
        "limits": (),
        "route_limits": (),
        "by": "ip",
        "on_outage": "local",
        "on_missing": "ip",
        "workers": 1,
        "replicas": 1,
        "local_share": None,
        "trusted_proxies": (),
        "forwarded_header": "x-forwarded-for",
        "ipv6_prefix": 64,
        "hash_keys": False,
        "secret": None,
        "algorithm": "fixed-window",
        "aligned": False,
        "headers": "draft",
        "retry_after_jitter": 0.1,
        "enabled": True,
        "outside_request": "error",
        "exempt_preflights": True,
        "degraded_header": True,
        "memory_keys": 100_000,
        "max_connections": 64,
        "stores": (),
        "scopes": (),
        "deny_cache": 2.0,
        "lease": 0,
        "near_limit": 0.8,
        "shed": False,
        "shed_min": 20,
        "shed_max": 200,
        "criticality": (),
        "queue_header": None,
        "key_style": "failsoft",
        "sessions": False,
        "session_store": "default",
        "session_cookie": "session",
        "session_idle": 1_209_600.0,
        "session_absolute": 2_592_000.0,
        "session_touch": 60.0,
        "session_grace": 10.0,
        "session_cap": 0,
        "session_bytes": 65_536,
        "session_encrypt": False,
        "session_wait": 0,
        "session_on_outage": "refuse",
        "session_snapshot": 0.0,
        "session_snapshot_keys": (),
        "session_import": "off",
        "session_import_prefix": None,
        "cookie_secure": True,
        "cookie_httponly": True,
        "cookie_domain": None,
        "cookie_path": "/",
        "cookie_samesite": "lax",
        "cookie_partitioned": False,
        "secret_fallbacks": (),
    }
    assert defaults == {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    assert defaults == {option.name: option.default for option in OPTIONS}


def test_options_are_complete() -> None:
    """Each option is described once, with a number of its own, and is covered by the examples here."""
    names = [option.name for option in OPTIONS]
    assert names == list(EXAMPLES) == list(MISTAKES)
    assert sorted(names) == sorted(field.name for field in fields(Settings))
    assert list(range(10, 10 + len(names))) == [option.number for option in OPTIONS]
    assert [] == [option.name for option in OPTIONS if not option.doc.endswith(".") or not option.accepts]
    assert [] == [option.name for option in OPTIONS if option.kind.read(option.default) != option.default]


def test_options_are_data() -> None:
    """A reference page can be made from an option: its variable, unit, range and what it accepts."""
    deadline = next(option for option in OPTIONS if option.name == "deadline")
    assert ("FAILSOFT_DEADLINE", "seconds", (0.01, 5.0), 0.1) == (
        deadline.variable,
        deadline.unit,
        deadline.range,
        deadline.default,
    )
    assert deadline.accepts.startswith("10ms to 5s")


@pytest.mark.parametrize(("key", "given", "expected"), GOOD)
def test_accepts(key: str, given: Any, expected: Any) -> None:
    """Each accepted value gets its normal form, by the constructor and from a mapping in lower or upper case."""
    beside = BESIDE.get(key, {})
    made = [Settings(**{key: given}, **beside), Settings.from_mapping({key: given, **beside})]
    made.append(Settings.from_mapping({key.upper(): given, **beside}))
    assert [(type(expected), expected)] * 3 == [(type(getattr(one, key)), getattr(one, key)) for one in made]


@pytest.mark.parametrize(("key", "given", "digit"), BAD)
def test_refuses(key: str, given: Any, digit: str) -> None:
    """Each value that is not accepted is one problem with a stable id, naming the key and what is accepted."""
    option = next(option for option in OPTIONS if option.name == key)
    (problem,) = problems_of({key: given})
    assert (f"failsoft.E{option.number}{digit}", key, f"FAILSOFT[{key!r}]") == (problem.id, problem.key, problem.where)
    assert option.accepts in problem.hint
    with pytest.raises(SettingsError) as caught:
        Settings(**{key: given})
    assert (problem.id, problem.message) == (caught.value.problems[0].id, caught.value.problems[0].message)


def test_limits_may_be_objects() -> None:
    """Items of `limits`, and other objects that stand for a limit, are passed on as they are."""
    item = limits.parse("5/minute")
    assert ((item,), (item, "7/hour")) == (Settings(limits=item).limits, Settings(limits=[item, "7/hour"]).limits)  # type: ignore[arg-type]  # what users write


@pytest.mark.parametrize(
    ("setting", "value", "message", "hint"),
    [
        ("limits", ["1000/minut"], "'1000/minut' is no limit", "did you mean '1000/minute'?"),
        ("limits", "5/min; 2/h, 1/day", "'5/min; 2/h, 1/day' is no limit", "did you mean '5/minute' and '2/hour'?"),
        (
            "limits",
            ["1/secnd", 3, "x"],
            "'1/secnd' is no limit; 3 was given; 'x' is no limit",
            "did you mean '1/second'?",
        ),
        ("route_limits", ["5/second brust 9"], "is no limit", "did you mean '5/second burst 9'?"),
        ("limits", ["two/minute"], "'two/minute' is no limit", "or a list of them"),
        ("by", "usr", "'usr' is none of the identities", "did you mean 'user'?"),
        ("by", ["IP", "X"], "'IP' is none of the identities; 'X' is none of the identities", "did you mean 'ip'?"),
        ("by", "headers:X-Key", "'headers:X-Key'", "did you mean 'header:X-Key'?"),
        ("by", "header", "'header'", "did you mean 'header:NAME'?"),
        ("by", "user:1", "'user:1'", "or a list of these"),
        ("by", late(str.upper), "Late", "late(...) goes with @limit"),
        ("by", lambda: "a", f"<lambda> ({__file__}:", "give it one, for the request"),
        ("by", ["ip", hashed(lambda a, b: "a")], "its parameters are (a, b)", "give it one, for the request"),
        ("limits", ["9/day", lambda _: "9/day"], "<function <lambda> at", "a function goes with @limit(...) alone"),
        ("route_limits", 7, "7 was given", "a failsoft.Quota, an item of the package limits, or a list of them"),
        (
            "scopes",
            [{"name": "a", "group": "a", "limits": "9/minut", "by": "usr"}, {"name": "b", "group": "b", "limits": "x"}],
            "a: limits: '9/minut' is no limit; a: by: 'usr' is none of the identities; b: limits: 'x' is no limit",
            "did you mean '9/minute'?; did you mean 'user'?",
        ),
    ],
)
def test_limits_and_identities_are_checked_like_the_rest(setting: str, value: Any, message: str, hint: str) -> None:
    """Each wrong limit and identity is told with what was given and its nearest right spelling, beside all other mistakes."""
    found = problems_of({setting: value, "replicas": 0})
    assert [(setting, True, True), ("replicas", True, True)] == [
        (one.key, message in one.message or one.key == "replicas", hint in one.hint or one.key == "replicas")
        for one in found
    ]


@pytest.mark.parametrize("value", ["redis://:abc;hunter2@host", "redis://u:ab,hunter2,c@host/0", "rediss://h;hunter2"])
def test_a_url_among_limits(value: str) -> None:
    """Nothing of it is shown: a piece of it may be of its password, and look like anything."""
    for limits_given in (value, value.replace(",", ";").split(";")):
        (problem,) = problems_of({"limits": limits_given})
        assert "hunter2" not in str(problem)
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ={"FAILSOFT_LIMITS": value})
    assert "hunter2" not in str(caught.value)


def test_one_threshold_for_secrets() -> None:
    """A secret that is too short hears at once how long it has to be where there are sessions."""
    (problem,) = problems_of({"sessions": True, "secret": "short"})
    assert ("failsoft.E252", True) == (
        problem.id,
        "at least 32 characters, or of 16 where there are no sessions" in problem.hint,
    )


def test_all_mistakes_at_once() -> None:
    """One error reports every mistake of a mapping, in its order, and is a ConfigurationError."""
    wrong = {"stroe": "redis://h", "deadline": "9s", "on_outage": "opne", "LIMITS": None, "limits": "5/second"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping(wrong)
    assert isinstance(caught.value, SettingsError)
    assert [
        ("failsoft.E001", "stroe"),
        ("failsoft.E122", "deadline"),
        ("failsoft.E162", "on_outage"),
        ("failsoft.E131", "limits"),
        ("failsoft.E004", "limits"),
    ] == [(problem.id, problem.key) for problem in caught.value.problems]
    assert [] == [problem for problem in caught.value.problems if str(problem) not in str(caught.value)]
    assert str(caught.value).startswith("5 mistakes in the settings:\n")


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("limit", "limits"),
        ("STORE_", "store"),
        ("trusted-proxies", "trusted_proxies"),
        ("Trusted_Proxy", "trusted_proxies"),
        ("on_missng", "on_missing"),
    ],
)
def test_nearest_key(key: str, near: str) -> None:
    """A key that does not exist is told the nearest that does."""
    (problem,) = problems_of({key: 1}, "app.config['FAILSOFT']")
    assert (f"did you mean app.config['FAILSOFT'][{near!r}]?", key) == (problem.hint, problem.key)


def test_key_like_no_other() -> None:
    """A key like no other is told what there is."""
    (problem,) = problems_of({"zzz": 1})
    assert [] == [option.name for option in OPTIONS if option.name not in problem.hint]


def test_nearest_value() -> None:
    """A value near an accepted one is told that one."""
    assert ["did you mean 'local'?", "did you mean redis://?", "write 10.0.0.0/8"] == [
        re.search(said, f"{problem.message}; {problem.hint}")[0]  # type: ignore[index]  # None fails the test as well
        for said, problem in zip(
            ["did you mean 'local'\\?", "did you mean redis://\\?", "write 10.0.0.0/8"],
            problems_of({"on_outage": "locale", "store": "redsi://h", "trusted_proxies": ["10.0.0.1/8"]}),
            strict=True,
        )
    ]


@pytest.mark.parametrize(
    ("scheme", "hint"),
    [
        ("valkeys", "write rediss://"),
        ("redis+tls", "TLS is rediss://"),
        ("sentinel", "redis+sentinel://, or rediss+sentinel:// for TLS"),
        ("cluster", "redis+cluster://, or rediss+cluster:// for TLS"),
    ],
)
def test_no_scheme_in_clear_is_suggested_for_an_encrypted_one(scheme: str, hint: str) -> None:
    """Whoever spells an encrypted scheme in another way is told how, and not led to send passwords in clear."""
    (problem,) = problems_of({"store": f"{scheme}://:pw@h"})
    assert (True, False) == (hint in problem.hint, "did you mean" in problem.hint)


@pytest.mark.parametrize("mapping", [None, 5, "store", ["store"], [("store", "memory://")]])
def test_no_mapping(mapping: Any) -> None:
    """What is no mapping is one problem."""
    assert [("failsoft.E002", "FAILSOFT")] == [(problem.id, problem.where) for problem in problems_of(mapping)]


def test_keys_that_are_no_text() -> None:
    """Keys that are no text are problems beside the others."""
    assert ["failsoft.E002", "failsoft.E002", "failsoft.E192"] == [
        problem.id for problem in problems_of({1: 2, None: 3, "replicas": 0})
    ]


PASSWORD = "hunter2hunter2"
LEAKS: list[dict[Any, Any]] = [
    {"store": f"redisss://user:{PASSWORD}@h:6379/0"},
    {"store": f"redsi://:{PASSWORD}@h"},
    {"store": f"redis://:{PASSWORD}"},
    {"store": f"redis://:{PASSWORD}/x@h"},
    {"store": f"redis://:{PASSWORD}#x@h"},
    {"store": f"redis://:{PASSWORD}?x@h"},
    {"store": f"redis://:1?{PASSWORD}@h"},
    {"store": f"redis://:1/{PASSWORD}@h"},
    {"store": f"redis://:{PASSWORD}@@h"},
    {"store": f"redis://:{PASSWORD}@[::1"},
    {"store": f"redis://:{PASSWORD} @h"},
    {"store": f"redis//:{PASSWORD}@h"},
    {"store": f"{PASSWORD}@h"},
    {"store": [f"redis://:{PASSWORD}@h"]},
    {"store": {"password": PASSWORD}},
    {"stroe": f"redis://:{PASSWORD}@h"},
    {"secrte": PASSWORD},
    {"secret": PASSWORD[:15]},
    {"secret": [PASSWORD]},
    {"secret": PASSWORD.encode()},
    {"deadline": f"redis://:{PASSWORD}@h"},
    {"limits": [f"redis://:{PASSWORD}@h", None]},
    {"headers": f"redis://:{PASSWORD}@h?x=1"},
    {f"redis://:{PASSWORD}@h": "store"},
    {"secret_fallbacks": PASSWORD},
    {"secret_fallbacks": [SECRET, PASSWORD]},
    {"secret_fallbacks": {PASSWORD: PASSWORD}},
    {"secret_fallbacks": [[PASSWORD]]},
    {"sessions": True, "secret": PASSWORD + "xx", "secret_fallbacks": [PASSWORD + "yy"]},
    {"sessions": True, "secret": SEALING, "store": f"mongodb://u:{PASSWORD}@h"},
    {"session_store": "b", "stores": {"a": f"redis://u:{PASSWORD}@h"}},
]


@pytest.mark.parametrize("mapping", LEAKS)
def test_no_secret_in_messages(mapping: dict[Any, Any]) -> None:
    """Neither a store's password nor the secret is shown by any message, wherever it was written by mistake."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(mapping)
    shown = str(caught.value) + repr(caught.value) + repr(caught.value.__cause__)
    assert PASSWORD not in shown
    assert PASSWORD[:15] not in shown


def test_no_secret_in_repr() -> None:
    """A repr shows what differs from the defaults, and masks passwords and the secret."""
    shown = repr(
        Settings(
            store=f"rediss://u:{PASSWORD}@h:1/0?tls_certificate=/c&tls_key_password={PASSWORD}",
            secret=SECRET,
            replicas=2,
        )
    )
    assert (
        "Settings(store='rediss://***@h:1/0?tls_certificate=/c&tls_key_password=***', replicas=2, secret=***)" == shown
    )
    assert "Settings(secret_fallbacks=***)" == repr(Settings(secret_fallbacks=(SECRET,)))
    assert "Settings()" == repr(Settings())


def test_mask() -> None:
    """Every password in a text is masked; a text without any stays as it is."""
    assert ("at redis://***@h:1/0?a=b&password=***", "redis://h:6379/0") == (
        mask(f"at redis://u:{PASSWORD}@{PASSWORD}@h:1/0?a=b&password={PASSWORD}"),
        mask("redis://h:6379/0"),
    )


def test_frozen() -> None:
    """Settings do not change."""
    made = Settings()
    with pytest.raises(FrozenInstanceError):
        made.store = "redis://h"  # type: ignore[misc]  # a mistake, on purpose
    assert not hasattr(made, "__dict__")


def test_constructor_is_keyword_only_and_knows_its_names() -> None:
    """A name that does not exist is a TypeError, as in every call; so is a positional argument."""
    with pytest.raises(TypeError, match="limit"):
        Settings(limit="5/second")  # type: ignore[call-arg]  # a mistake, on purpose
    with pytest.raises(TypeError, match="positional"):
        Settings("redis://h")  # type: ignore[call-arg]  # a mistake, on purpose


def test_error_can_be_copied() -> None:
    """An error goes between processes, as test runners and pools send them."""
    with pytest.raises(SettingsError) as caught:
        Settings(replicas=0, workers=0)
    assert (str(caught.value), caught.value.problems) == (
        str(pickle.loads(pickle.dumps(caught.value))),  # noqa: S301  # our own bytes
        copy.copy(caught.value).problems,
    )


def test_settings_can_be_copied() -> None:
    """Settings go between processes, compare by value, and can be had with a difference."""
    made = Settings(store="redis://h", trusted_proxies="10.0.0.0/8", deadline="50ms")  # type: ignore[arg-type]  # what users write
    assert [made, made] == [pickle.loads(pickle.dumps(made)), copy.deepcopy(made)]  # noqa: S301  # our own bytes
    assert (0.2, ("10.0.0.0/8",)) == (replace(made, deadline=0.2).deadline, replace(made, deadline=0.2).trusted_proxies)


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("LIMITS", "100/minute; 2000/day", ("100/minute", "2000/day")),
        ("LIMITS", "100/minute,2000/day,", ("100/minute", "2000/day")),
        ("LIMITS", '["100/minute; 2000/day"]', ("100/minute; 2000/day",)),
        ("LIMITS", "[]", ()),
        ("TRUSTED_PROXIES", "10.0.0.0/8, unix", ("10.0.0.0/8", "unix")),
        ("TRUSTED_PROXIES", ' ["10.0.0.0/8"]', ("10.0.0.0/8",)),
        ("BY", "user", "user"),
        ("BY", "user,ip", ("user", "ip")),
        ("DEADLINE", "250ms", 0.25),
        ("WORKERS", "4", 4),
        ("LOCAL_SHARE", "0.5", 0.5),
        ("ENABLED", "false", False),
        ("SECRET", "12345678901234567890", "12345678901234567890"),
        ("SECRET_FALLBACKS", f"{SECRET};{SEALING}", (SECRET, SEALING)),
        ("SECRET_FALLBACKS", json.dumps([OLDER]), (OLDER,)),
        ("SESSION_SNAPSHOT_KEYS", "locale, theme", ("locale", "theme")),
        ("SESSION_SNAPSHOT_KEYS", "locale", ("locale",)),
        ("STORE", "", "memory://"),
        ("LIMITS", "", ()),
    ],
)
def test_environment(variable: str, text: str, expected: Any) -> None:
    """Variables are text: lists are JSON or separated, and an empty variable counts as not there."""
    made = Settings.from_env({f"FAILSOFT_{variable}": text, "PATH": "/bin", "FAILSOFTISH": "1"})
    assert expected == getattr(made, variable.lower())


@pytest.mark.parametrize(
    ("environ", "id_", "where", "said"),
    [
        ({"FAILSOFT_LIMIT": "5/second"}, "failsoft.E001", "FAILSOFT_LIMIT", "did you mean FAILSOFT_LIMITS?"),
        ({"FAILSOFT_STROE": ""}, "failsoft.E001", "FAILSOFT_STROE", "did you mean FAILSOFT_STORE?"),
        ({"FAILSOFT_": "x"}, "failsoft.E001", "FAILSOFT_", "known are"),
        (
            {"failsoft_store": "memory://", "failsoft_home": "/"},
            "failsoft.E001",
            "failsoft_store",
            "write FAILSOFT_STORE",
        ),
        ({"Failsoft_Config": "a.toml"}, "failsoft.E001", "Failsoft_Config", "write FAILSOFT_CONFIG"),
        ({"FAILSOFT_REPLICAS": "0"}, "failsoft.E192", "FAILSOFT_REPLICAS", "whole number"),
        ({"FAILSOFT_LIMITS": "["}, "failsoft.E132", "FAILSOFT_LIMITS", "list"),
        ({"FAILSOFT_LIMITS": "[" * 100_000}, "failsoft.E132", "FAILSOFT_LIMITS", "list"),
        ({"FAILSOFT_LIMITS": ",;"}, "failsoft.E132", "FAILSOFT_LIMITS", "[]"),
        ({"FAILSOFT_LIMITS": "[5]"}, "failsoft.E131", "FAILSOFT_LIMITS", "list"),
        ({"FAILSOFT_store": "memory://", "FAILSOFT_STORE": "memory://"}, "failsoft.E004", "FAILSOFT_STORE", "keep one"),
    ],
)
def test_environment_mistakes(environ: dict[str, str], id_: str, where: str, said: str) -> None:
    """A mistake in the environment is named by its variable, and told the nearest variable."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    (problem,) = caught.value.problems
    assert (id_, where, True) == (problem.id, problem.where, said in problem.hint)


@pytest.mark.parametrize(
    ("text", "expected"), [("4", 4), ("1", 1), ("0", 1), ("", 1), ("auto", 1), ("-2", 1), ("2.5", 1), ("\u0663", 1)]
)
def test_web_concurrency(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `workers`, WEB_CONCURRENCY says how many there are; what it cannot say is for the server to refuse."""
    monkeypatch.setenv("WEB_CONCURRENCY", text)
    given = {"WEB_CONCURRENCY": text}
    assert [expected] * 4 == [
        Settings().workers,
        Settings.from_mapping({}).workers,
        Settings.load(environ=given).workers,
        Settings.from_env(given).workers,
    ]
    assert [7, 7, 1] == [
        Settings.load({"workers": 7}, environ=given).workers,
        Settings.from_env(given | {"FAILSOFT_WORKERS": "7"}).workers,
        Settings.load(environ={}).workers,
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("failsoft.toml", 'store = "redis://h"\nLIMITS = ["5/second"]\ndeadline = "50ms"\n'),
        ("failsoft.toml", '[failsoft]\nstore = "redis://h"\nlimits = ["5/second"]\ndeadline = 0.05\n[other]\nx = 1\n'),
        (
            "pyproject.toml",
            '[project]\nname = "x"\n[tool.failsoft]\nstore = "redis://h"\nlimits = "5/second"\ndeadline = 0.05\n',
        ),
    ],
)
def test_toml(name: str, text: str, tmp_path: Path) -> None:
    """Settings are read from the top level of a TOML file, from [failsoft] or from [tool.failsoft]."""
    path = tmp_path / name
    path.write_text(text)
    assert (
        Settings(store="redis://h", limits=("5/second",), deadline=0.05)
        == Settings.from_toml(path)
        == Settings.from_toml(str(path))
    )


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (None, ["failsoft.E003"]),
        (b"store = ", ["failsoft.E003"]),
        (b"\xff", ["failsoft.E003"]),
        (b"x = " + b"[" * 100_000, ["failsoft.E003"]),
        (b"[failsoft]\n[tool.failsoft]\n", ["failsoft.E003"]),
        (b"[tool.ruff]\n", ["failsoft.E003"]),
        (b"failsoft = 1\n", ["failsoft.E002"]),
        (b"[tool]\nfailsoft = []\n", ["failsoft.E002"]),
        (b"[failsoft]\nstroe = 1\nworkers = 1979-05-27\n", ["failsoft.E001", "failsoft.E181"]),
        (b"[failsoft.limits]\n", ["failsoft.E131"]),
    ],
)
def test_toml_mistakes(content: bytes | None, ids: list[str], tmp_path: Path) -> None:
    """A file that cannot be read or understood is a mistake like any other, and names the file."""
    path = tmp_path / "failsoft.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        Settings.from_toml(path)
    assert ids == [problem.id for problem in caught.value.problems]
    assert [] == [problem for problem in caught.value.problems if str(path) not in problem.where]


@pytest.mark.parametrize("table", ["failsft", "Failsoft", "tool.failsof"])
def test_a_misspelt_table(table: str, tmp_path: Path) -> None:
    """A table whose name is much like ours is told by its name, and its settings are not taken for names of settings."""
    path = tmp_path / "failsoft.toml"
    path.write_text(f'[{table}]\nstore = "redis://h"\n')
    with pytest.raises(SettingsError) as caught:
        Settings.from_toml(path)
    (problem,) = caught.value.problems
    name = table.rpartition(".")[2]
    assert f"the file has no table [failsoft]; did you mean that by '{name}'?" == problem.message
    assert "in [failsoft] or in [tool.failsoft]" in problem.hint


def test_toml_path_with_a_null() -> None:
    """A path that no file can have is a mistake, not an accident."""
    with pytest.raises(SettingsError):
        Settings.from_toml("a\0b")


def test_precedence(tmp_path: Path) -> None:
    """Explicit settings win over the environment, that over the file, and that over the defaults."""
    path = tmp_path / "failsoft.toml"
    path.write_text('prefix = "file"\nreplicas = 2\nheaders = "off"\nworkers = 2\n')
    environ = {
        "FAILSOFT_CONFIG": str(path),
        "FAILSOFT_PREFIX": "environment",
        "FAILSOFT_REPLICAS": "3",
        "FAILSOFT_HEADERS": "",
        "WEB_CONCURRENCY": "9",
    }
    made = Settings.load({"PREFIX": "explicit"}, environ=environ)
    assert ("explicit", 3, "off", 2, "ip") == (made.prefix, made.replicas, made.headers, made.workers, made.by)


def test_load_takes_this_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another, the environment is this process's."""
    monkeypatch.setenv("FAILSOFT_PREFIX", "here")
    assert ("here", "failsoft") == (Settings.load().prefix, Settings.load(environ={}).prefix)


def test_load_returns_settings_as_they_are() -> None:
    """Complete settings are explicit in every key."""
    made = Settings(prefix="mine")
    assert made is Settings.load(made, environ={"FAILSOFT_PREFIX": "theirs"})


def test_places(tmp_path: Path) -> None:
    """Of each setting it is known where it was said; of defaults, nothing."""
    file = tmp_path / "some.toml"
    file.write_text('prefix = "file"\nworkers = 3\nstore = "memory://"\n')
    environ = {"FAILSOFT_CONFIG": str(file), "FAILSOFT_WORKERS": "2", "FAILSOFT_STORE": "memory://"}
    expected = {"prefix": f"prefix in {file}", "workers": "FAILSOFT_WORKERS", "store": "mine['STORE']"}
    assert expected == Settings.places({"STORE": "memory://"}, environ=environ, source="mine")
    assert {} == Settings.places(environ={})
    assert "mine.workers" == Settings.places(Settings(), environ=environ, source="mine")["workers"]


def test_load_reports_every_source(tmp_path: Path) -> None:
    """The mistakes of all sources are reported together, each where it was made; no right value hides a wrong one."""
    path = tmp_path / "x.toml"
    path.write_text('headers = "on"\nprefix = ""\n')
    environ = {"FAILSOFT_CONFIG": str(path), "FAILSOFT_REPLICAS": "0", "FAILSOFT_PREFIX": "right"}
    with pytest.raises(SettingsError) as caught:
        Settings.load({"workers": 0}, environ=environ, source="settings.FAILSOFT")
    assert ["settings.FAILSOFT['workers']", "FAILSOFT_REPLICAS", f"headers in {path}", f"prefix in {path}"] == [
        problem.where for problem in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 1.0),
        ({"workers": 4}, 0.25),
        ({"workers": 4, "replicas": 2}, 0.125),
        ({"workers": 4, "local_share": 0.5}, 0.5),
    ],
)
def test_effective_local_share(given: Mapping[str, object], expected: float) -> None:
    """Without a share of its own, each process has an equal one."""
    assert expected == Settings.from_mapping(given).effective_local_share


SESSIONS: dict[str, Any] = {"sessions": True, "secret": SEALING, "store": "redis://h"}
"""Settings with sessions."""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SESSIONS, []),
        (SESSIONS | {"workers": 4, "replicas": 2, "secret_fallbacks": [OLDER]}, []),
        (SESSIONS | {"secret": None}, [("failsoft.E253", "secret", "there is none", "token_urlsafe(32)")]),
        (SESSIONS | {"secret": "s" * 31}, [("failsoft.E253", "secret", "it has 31", "every process and framework")]),
        (
            SESSIONS | {"secret_fallbacks": [OLDER, "s" * 31, SECRET]},
            [("failsoft.E693", "secret_fallbacks", "number 2, 3", "leave out")],
        ),
        ({"secret_fallbacks": ["s" * 16], "secret": "s" * 16}, []),
        ({"session_store": "b"}, [("failsoft.E483", "session_store", "no store 'b'", "name one of stores")]),
        (
            {"limits": ["9/day", "10001/hour"], "algorithm": "moving-window"},
            [("failsoft.E133", "limits", "10001 per 3600 s", "another algorithm")],
        ),
        (
            {"route_limits": ["61000000/minute"], "algorithm": "gcra", "scopes": [API, GREEDY]},
            [
                ("failsoft.E143", "route_limits", "61000000 per 60 s", "another algorithm"),
                ("failsoft.E373", "scopes", "greedy: 2000000 per 1 s", "another algorithm"),
            ],
        ),
        ({"aligned": True, "limits": ["9/month", "1/second burst 5"]}, []),
        (
            {"scopes": [replace(API, store="bulks")], "stores": {"bulk": "memory://"}},
            [("failsoft.E374", "scopes", "api: there is no store 'bulks'", "did you mean 'bulk'?")],
        ),
        (
            {"hash_keys": True, "key_style": "slowapi"},
            [("failsoft.E463", "key_style", "keys of slowapi", "leave out hash_keys")],
        ),
        (
            {"shed_min": 30, "shed_max": 20},
            [("failsoft.E423", "shed_min", "30 is above shed_max, 20", "lower shed_min")],
        ),
        (
            SESSIONS | {"session_store": "session", "stores": {"sessions": "redis://b"}},
            [("failsoft.E483", "session_store", "no store 'session'", "did you mean 'sessions'?")],
        ),
        (SESSIONS | {"store": "memory://"}, []),
        (
            SESSIONS | {"store": "memory://", "workers": 2},
            [("failsoft.E484", "session_store", "2 workers", "redis://")],
        ),
        (
            SESSIONS | {"store": "memory://", "replicas": 3},
            [("failsoft.E484", "session_store", "3 workers", "redis://")],
        ),
        (SESSIONS | {"store": "memory://", "sessions": False, "workers": 2}, []),
        (
            SESSIONS | {"session_store": "s", "stores": {"s": "memory://"}, "workers": 2},
            [("failsoft.E484", "session_store", "2 workers", "redis://")],
        ),
        (SESSIONS | {"session_store": "s", "stores": {"s": "redis://b"}, "store": "memory://", "workers": 2}, []),
        (SESSIONS | {"stores": {"s": "memory://"}, "workers": 2}, []),
        (SESSIONS | {"store": "embedded://", "workers": 2}, []),
        (
            SESSIONS | {"store": "embedded://", "replicas": 2},
            [("failsoft.E484", "session_store", "2 replicas", "redis://")],
        ),
        *(
            (
                SESSIONS | {"store": f"{scheme}://h"},
                [("failsoft.E485", "session_store", f"{scheme}:// only counts", "stores")],
            )
            for scheme in ("memcached", "mongodb", "mongodb+srv")
        ),
        (SESSIONS | {"store": "mongodb://h", "sessions": False}, []),
        *(
            (
                SESSIONS | {"store": f"{scheme}+cluster://h", "session_wait": wait},
                [("failsoft.E573", "session_wait", "which node of a cluster", "set session_wait to 0")] if wait else [],
            )
            for scheme, wait in (("redis", 1), ("rediss", 2), ("redis", 0))
        ),
        (SESSIONS | {"store": "redis+cluster://h", "session_wait": 1, "sessions": False}, []),
        ({"session_idle": "8h", "session_absolute": "8h"}, []),
        (
            {"session_idle": "9h", "session_absolute": "8h"},
            [("failsoft.E503", "session_idle", "9h", "at most 8h, or raise session_absolute")],
        ),
        ({"session_absolute": "1h"}, [("failsoft.E503", "session_idle", "14d", "at most 1h")]),
        ({"session_idle": "1m"}, [("failsoft.E523", "session_touch", "only every 1m", "less than 1m")]),
        ({"session_idle": "1m", "session_touch": 59}, []),
        ({"cookie_secure": False}, []),
        (
            {"cookie_secure": False, "cookie_samesite": "none", "cookie_partitioned": True, "sessions": True},
            [
                ("failsoft.E253", "secret", "32", "python -c"),
                ("failsoft.E673", "cookie_samesite", "SameSite=None", "cookie_secure"),
                ("failsoft.E683", "cookie_partitioned", "Partitioned", "cookie_secure"),
            ],
        ),
    ],
)
def test_conflicts(given: Mapping[str, object], expected: list[tuple[str, str, str, str]]) -> None:
    """Settings that do not go together are mistakes with ids of their own, and all are told at once."""
    problems = mistakes_in(Settings.from_mapping, given) or ()
    assert [(id_, key, True, True) for id_, key, *_ in expected] == [
        (one.id, one.key, first in one.message, second in one.hint)
        for one, (_, _, first, second) in zip(problems, expected, strict=True)
    ]
    numbers = {option.name: option.number for option in OPTIONS}
    assert [] == [one for one in problems if not one.id.startswith(f"failsoft.E{numbers[one.key]}")]


def test_conflicts_are_told_where_they_are(tmp_path: Path) -> None:
    """A conflict names every setting that makes it, as the source that gave it spells it, and none that nobody wrote."""
    path = tmp_path / "failsoft.toml"
    path.write_text("cookie_partitioned = true\n")
    environ = {"FAILSOFT_CONFIG": str(path), "FAILSOFT_SESSION_STORE": "b"}
    with pytest.raises(SettingsError) as caught:
        Settings.load({"SESSIONS": True, "SESSION_IDLE": "90d", "COOKIE_SECURE": False}, environ=environ)
    assert [
        "FAILSOFT_SESSION_STORE",
        "FAILSOFT['SESSIONS']",
        "FAILSOFT['SESSION_IDLE']",
        f"cookie_partitioned in {path} and FAILSOFT['COOKIE_SECURE']",
    ] == [problem.where for problem in caught.value.problems]
    with pytest.raises(SettingsError) as caught:
        Settings(sessions=True)
    assert ["secret"] == [problem.where for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("environ", "argv", "where"),
    [
        ({"FAILSOFT_WORKERS": "4"}, [], "FAILSOFT_WORKERS and Failsoft(...)['sessions']"),
        ({"WEB_CONCURRENCY": "4"}, [], "WEB_CONCURRENCY and Failsoft(...)['sessions']"),
        ({}, ["gunicorn", "-w", "4"], "the server's --workers and Failsoft(...)['sessions']"),
        (
            {"FAILSOFT_STORE": "memory://", "FAILSOFT_REPLICAS": "4"},
            [],
            "FAILSOFT_STORE and FAILSOFT_REPLICAS and Failsoft(...)['sessions']",
        ),
    ],
)
def test_what_makes_workers_too_many_is_named(
    environ: dict[str, str], argv: list[str], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That workers would not share their sessions is told with what says how many there are, whoever that is."""
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SettingsError) as caught:
        Settings.load({"sessions": True, "secret": SEALING}, environ=environ, source="Failsoft(...)")
    assert [("failsoft.E484", where)] == [(problem.id, problem.where) for problem in caught.value.problems]


def test_a_frameworks_own_settings_are_called_by_their_names() -> None:
    """What is wrong with a framework's setting that stands for ours is told at that setting; ours has precedence."""
    defaults = {"secret": "short", "cookie_samesite": "none", "cookie_secure": False}
    called = {"secret": "SECRET_KEY", "cookie_secure": "SESSION_COOKIE_SECURE"}
    with pytest.raises(SettingsError) as caught:
        Settings.load({}, environ={}, defaults=defaults, called=called)
    assert ["SECRET_KEY"] == [problem.where for problem in caught.value.problems]
    with pytest.raises(SettingsError) as caught:
        Settings.load({"SECRET": SEALING, "COOKIE_SAMESITE": "none"}, environ={}, defaults=defaults, called=called)
    assert ["FAILSOFT['COOKIE_SAMESITE'] and SESSION_COOKIE_SECURE"] == [one.where for one in caught.value.problems]


def test_at_store() -> None:
    """To open another store the same settings do, without what they say of stores."""
    made = Settings(**SESSIONS, stores=(("s", "redis://b"),), session_store="s", workers=2, deadline=0.2)
    other = made.at_store("memory://")
    assert ("memory://", (), False, 0.2) == (other.store, other.stores, other.sessions, other.deadline)


@pytest.mark.parametrize(
    ("given", "seen", "expected"),
    [
        ({}, None, []),
        ({}, 1, []),
        ({"store": "redis://h", "workers": 4, "replicas": 3}, 4, []),
        ({"store": "embedded://", "workers": 4}, None, []),
        ({"workers": 4}, None, [("failsoft.W001", "store", "4 workers", "up to 40")]),
        ({"replicas": 3}, None, [("failsoft.W001", "store", "3 workers", "up to 30")]),
        ({"workers": 2, "replicas": 3}, 2, [("failsoft.W001", "store", "6 workers", "up to 60")]),
        ({"on_outage": "open"}, 2, [("failsoft.W001", "store", "2 workers", "up to 20")]),
        ({"store": "embedded://", "replicas": 2}, None, [("failsoft.W002", "store", "2 replicas", "up to 20")]),
        (
            {"trusted_proxies": ["10.0.0.0/8", "0.0.0.0/0"]},
            None,
            [("failsoft.W003", "trusted_proxies", "0.0.0.0/0", "every")],
        ),
        ({"trusted_proxies": ["::/0"]}, None, [("failsoft.W003", "trusted_proxies", "::/0", "every client")]),
        ({"hash_keys": True}, None, [("failsoft.W004", "secret", "without a secret", "trying")]),
        ({"hash_keys": True, "secret": SECRET}, None, []),
        ({"store": "redis://h"}, 4, [("failsoft.W005", "workers", "4 workers run", "4 times")]),
        ({"store": "redis://h", "workers": 8}, 4, []),
        ({"store": "redis://h", "local_share": 0.1}, 4, []),
        ({"store": "redis://h", "on_outage": "closed"}, 4, []),
        ({"queue_header": "X-Start"}, None, [("failsoft.W006", "queue_header", "X-Start", "no proxy is trusted")]),
        ({"queue_header": "X-Start", "trusted_proxies": ["unix"]}, None, []),
        (SESSIONS, 4, [("failsoft.W005", "workers", "4 workers run", "4 times")]),
        (SESSIONS | {"store": "memory://"}, None, [("failsoft.W007", "session_store", "end with the process", "")]),
        (
            SESSIONS | {"store": "memory://", "local_share": 1},
            3,
            [
                ("failsoft.W001", "store", "3 workers", "up to 30"),
                ("failsoft.W007", "session_store", "3 workers", "at random"),
            ],
        ),
        (
            SESSIONS | {"stores": {"s": "memory://"}, "session_store": "s"},
            None,
            [("failsoft.W007", "session_store", "memory://", "")],
        ),
        (SESSIONS | {"store": "memory://", "stores": {"s": "redis://h"}, "session_store": "s"}, None, []),
        ({"cookie_partitioned": True}, None, [("failsoft.W008", "cookie_partitioned", "SameSite=Lax", "embedded")]),
        ({"cookie_partitioned": True, "cookie_samesite": "none"}, None, []),
        (
            SESSIONS | {"store": "redis://h", "session_snapshot_keys": ["a"]},
            None,
            [("failsoft.W009", "session_snapshot_keys", "session_snapshot is 0", "session_snapshot")],
        ),
        (SESSIONS | {"store": "redis://h", "session_snapshot_keys": ["a"], "session_snapshot": "5m"}, None, []),
        ({"session_snapshot_keys": ["a"]}, None, []),
        ({"aligned": True, "limits": ["9/day; 1/second burst 5"]}, None, []),
        ({"aligned": True, "limits": [Quota(amount=9, window=172_800), "9/hour"]}, None, []),
        (
            {"aligned": True, "limits": ["9/minute; 9/month"], "route_limits": ["7/2 days"]},
            None,
            [("failsoft.W010", "aligned", "9 per 2592000 s, 7 per 172800 s:", "at most a day")],
        ),
        (
            {"aligned": True, "algorithm": "gcra", "scopes": [{"name": "s", "prefix": "/s", "limits": ["9/minute"]}]},
            None,
            [("failsoft.W010", "aligned", "9 per 60 s:", "only fixed windows")],
        ),
    ],
)
def test_advice(given: Mapping[str, object], seen: int | None, expected: list[tuple[str, str, str, str]]) -> None:
    """What is allowed and probably not meant is said, with the numbers; what cannot be known is not."""
    advice = Settings.from_mapping(given).advice(workers_seen=seen)
    assert [(id_, key, True, True) for id_, key, *_ in expected] == [
        (one.id, one.key, first in one.message, second in one.message)
        for one, (_, _, first, second) in zip(advice, expected, strict=True)
    ]


texts = any_text(max_size=30) | st.sampled_from(
    ["true", "4", "0.5", "10s", "[]", "ip", "redis://a:b@c", "10.0.0.0/8", "\ud800"]
)
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.binary(max_size=8)
    | st.timedeltas()
    | st.builds(lambda: 10**5000)
    | st.builds(object),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
names = st.sampled_from([option.name for option in OPTIONS])
keys: st.SearchStrategy[Any] = names | names.map(str.upper) | texts | st.integers() | st.none()


class Unshowable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def mistakes_in(make: Callable[[Any], Settings], source: Any) -> tuple[SettingProblem, ...] | None:
    """What is wrong with a source, or None where nothing is; anything but a SettingsError gets out."""
    try:
        make(source)
    except SettingsError as error:
        str(error).encode()
        return error.problems
    return None


@given(st.dictionaries(keys, junk | st.builds(Unshowable), max_size=6))
@settings(deadline=None)
def test_junk_is_a_configuration_error(mapping: dict[Any, Any]) -> None:
    """Whatever a mapping holds, it is settings or a SettingsError whose message can be written."""
    assert () != mistakes_in(Settings.from_mapping, mapping)


@given(st.dictionaries(names.map(lambda name: "FAILSOFT_" + name.upper()) | texts, texts, max_size=6))
@settings(deadline=None)
def test_junk_environment_is_a_configuration_error(environ: dict[str, str]) -> None:
    """Whatever an environment holds, it is settings or a SettingsError that names variables."""
    problems = mistakes_in(Settings.from_env, environ) or ()
    assert [] == [problem for problem in problems if not problem.where.startswith("FAILSOFT_")]


def test_deep_junk() -> None:
    """A value nested beyond Python's recursion is a mistake like any other."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert ["failsoft.E131", "failsoft.E211"] == [
        problem.id for problem in problems_of({"limits": deep, "trusted_proxies": deep})
    ]
    while deep:  # taken apart from outside, since freeing it whole would recurse as deep
        deep = deep.pop()


def written(key: str, value: Any) -> str:
    """A value as an environment has it."""
    if isinstance(value, tuple):
        return json.dumps([asdict(one) if isinstance(one, Scope) else one for one in value])
    return "" if value is None else str(value)


plain = {
    key: st.sampled_from([expected for _, expected in examples if not callable(expected)])
    for key, examples in EXAMPLES.items()
}


@given(st.fixed_dictionaries({}, optional=plain))
@settings(deadline=None, max_examples=max(10, settings().max_examples // 2))
def test_round_trips(values: dict[str, Any]) -> None:
    """Settings made from settings, written as a mapping or as an environment, are the same settings."""
    for key in list(values):
        values |= BESIDE.get(key, {})
    made = Settings(**values)
    everything = {option.name: getattr(made, option.name) for option in OPTIONS}
    assert [made] * 4 == [
        Settings.from_mapping(everything),
        Settings.from_mapping({key.upper(): value for key, value in values.items()}),
        Settings.from_env({f"FAILSOFT_{key.upper()}": written(key, value) for key, value in everything.items()}),
        Settings.load(values, environ={}),
    ]
    assert hash(made) == hash(Settings.from_mapping(everything))


@pytest.mark.parametrize(
    ("scope", "message", "hint"),
    [
        (
            {"nam": "a", "limits": "1/day"},
            "one has the key 'nam', which is not known; one has no name",
            "did you mean name?",
        ),
        ({"name": "", "limits": "1/day"}, "one has the name ''", "letters, digits"),
        ({"name": "a", "limit": "1/day"}, "a has the key 'limit', which is not known", "did you mean limits?"),
        (
            {"name": "a", "limits": "1/day", "on_outage": "opne"},
            "a: on_outage: 'opne' is not one",
            "did you mean 'open'?",
        ),
    ],
)
def test_scopes_that_are_misspelt(scope: dict[str, str], message: str, hint: str) -> None:
    """A key that a table of scopes does not know is named, with the nearest that it lacks."""
    (problem,) = problems_of({"scopes": [scope]})

    assert message in problem.message
    assert hint in problem.hint
