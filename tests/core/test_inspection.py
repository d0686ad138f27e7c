"""What applies where, for people."""

import functools
from typing import Any

import pytest

from failsoft import ConfigurationError, Penalty, exempt, late, limit
from failsoft.inspection import Description, RouteInfo, describe, mistakes
from failsoft.inspection.keys import SCHEMAS, read_key
from failsoft.inspection.limits import LimitInfo, limits_of
from failsoft.ratelimit import Quota
from failsoft.ratelimit.concern import SCHEMA as LIMITS
from failsoft.sessions.service import SCHEMA as SESSIONS
from tests.core.requests import make_runtime


class AllStatuses:
    """Statuses that cannot be listed."""

    def __contains__(self, status: int) -> bool:
        return True

    def __repr__(self) -> str:
        return "all statuses"


def lookup(*args: Any) -> str:
    """Whom a limit counts."""
    return "x"


def view_with(*policies: Any) -> Any:
    def view() -> None: ...

    for policy in reversed(policies):
        view = policy(view)
    return view


def rows(
    policies: Any, *, method: str = "GET", template: str = "/a", groups: tuple[str, ...] = (), **settings: Any
) -> list[LimitInfo]:
    return limits_of(make_runtime(**settings), RouteInfo(method, template, (view_with(*policies),), groups))


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda item: item, False),
        (lambda item, page: item, True),
        (lambda item, page, size: item, True),
        (lambda item, **others: item, True),
        (lookup, False),
        (lambda owner: owner, False),
        (lambda item, page, owner: item, False),
        (lambda item, page, owner="x": item, True),
        (type("C", (), {"__call__": lambda self, item, page: item})(), True),
        (max, True),  # written in C, it has no parameters to look at
    ],
)
def test_late_functions_and_arguments_by_name(function: Any, fits: bool) -> None:
    """A view that gets its arguments by name has a late function that takes those which it always gets, or is a mistake at start."""

    def view(item: str, *, page: int, size: int = 9) -> None: ...

    def around(view: Any) -> Any:
        return functools.wraps(view)(lambda *args, **kwargs: view(*args, **kwargs))

    limited = limit("9/minute", by=["ip", late(function)])(view)
    runtime = make_runtime()
    found = mistakes(runtime, [RouteInfo(method, "/{item}", (limited,), by_name=True) for method in ("GET", "PUT")])
    assert fits == (not found)
    assert [True] * len(found) == [
        "/{item}: late(" in str(one) and "item, page, size by name" in str(one) for one in found
    ]
    # Elsewhere it is not known what the function will get.
    assert [] == mistakes(runtime, [RouteInfo("GET", "/{item}", (limited,))])
    for other in (around(limited), limit("9/minute", by=late(function))(around(view))):
        assert [] == mistakes(runtime, [RouteInfo("GET", "/{item}", (other,), by_name=True)])


def test_late_functions_and_methods() -> None:
    """A bound method's object is no argument by name: the late function may call it as it likes."""

    class Shelf:
        @limit("9/minute", by=late(lambda shelf, item: item))
        def view(self, item: str) -> None: ...

        @classmethod
        @limit("9/minute", by=late(lambda shelf, item: item))
        def other(cls, item: str) -> None: ...

    routes = [RouteInfo("GET", "/{item}", (view,), by_name=True) for view in (Shelf().view, Shelf.other)]
    assert [] == mistakes(make_runtime(), routes)


def test_settings_and_own_limits_in_order() -> None:
    """The settings' limits come first, then the view's own, as they are decided; each says where it is from."""
    found = rows(
        [limit("9/second burst 20"), limit("7/hour", on_outage="open")], limits=["100/day"], route_limits=["5/minute"]
    )
    place = f"{__name__}.view_with.<locals>.view"
    where = f"{__file__}:{view_with.__code__.co_firstlineno + 1}"
    assert [
        LimitInfo(quota="100 per 86400 s", by="ip", source="limits", on_outage="local", name="100-per-day"),
        LimitInfo(
            quota="9 per 1 s burst 20",
            by="ip",
            source=place,
            where=where,
            on_outage="local",
            name="9-per-second",
            algorithm="gcra",
        ),
        LimitInfo(quota="7 per 3600 s", by="ip", source=place, where=where, on_outage="open", name="7-per-hour"),
    ] == found


def test_routes_without_limits_of_their_own() -> None:
    """`route_limits` stand where a view has none; an exempt view has nothing of the settings."""
    settings = {"limits": ["100/day"], "route_limits": ["5/minute"]}
    assert ["limits", "route_limits"] == [one.source for one in rows([], **settings)]
    assert [] == rows([exempt], **settings)


def test_only_limits_of_the_method() -> None:
    """A limit on other methods is not listed."""
    policies = [limit("9/minute", methods=["POST"])]
    assert [0, 1] == [len(rows(policies, method=method)) for method in ("GET", "POST")]


@pytest.mark.parametrize(
    ("policy", "quota", "by", "note"),
    [
        (limit("9/minute", by=["ip", "header:X-Key"]), "9 per 60 s", "ip + header:X-Key", ""),
        (limit("9/minute", by=lookup), "9 per 60 s", "lookup", ""),
        (limit("9/minute", by=late(lookup)), "9 per 60 s", "lookup", "late"),
        (limit("9/minute", by=["ip", late(lookup)]), "9 per 60 s", "ip + lookup", "late"),
        (limit("9/minute", shared="s", per_method=True, cost=3), "9 per 60 s", "ip", "shared s, cost 3, per method"),
        (limit("9/minute", when=lookup, cost=lookup), "9 per 60 s", "ip", "when lookup, cost lookup"),
        (limit(lookup, by="user"), "by lookup", "user", ""),
        (limit("9/minute", charge_on=range(400, 500), peek=True), "9 per 60 s", "ip", "charged on 400-499, peeks"),
        (limit("9/minute", charge_on={403, 401}), "9 per 60 s", "ip", "charged on 401, 403"),
        (limit("9/minute", charge_on=lookup), "9 per 60 s", "ip", "charged on lookup"),
        (limit("9/minute", charge_on=AllStatuses()), "9 per 60 s", "ip", "charged on all statuses"),
        (limit("9/minute", adjustable=True, name="a"), "9 per 60 s", "ip", "adjustable"),
        (
            limit("9/minute", penalty=Penalty(after=3, block="5m")),
            "9 per 60 s",
            "ip",
            "penalty of 300 s, then times 2 up to 3600 s, after 3 breaches in 60 s",
        ),
        (
            limit("9/minute", penalty=Penalty(growth=1)),
            "9 per 60 s",
            "ip",
            "penalty of 60 s after 5 breaches in 60 s",
        ),
        (limit("9/minute", shadow=True), "9 per 60 s", "ip", "shadow"),
        (limit("9/minute", lease=10), "9 per 60 s", "ip", "lease 10"),
        (limit("9/minute", store="other"), "9 per 60 s", "ip", "in store other"),
        (limit("9/minute", algorithm="moving-window"), "9 per 60 s", "ip", "moving-window"),
        (limit("9/minute", aligned=True), "9 per 60 s", "ip", "fixed-window, aligned"),
    ],
)
def test_in_words(policy: Any, quota: str, by: str, note: str) -> None:
    """What depends on the request is told by the name of the function that it depends on."""
    found = rows([policy], stores={"other": "memory://"})
    assert [(quota, by, note)] == [(one.quota, one.by, one.note) for one in found]


def test_functions_without_a_name() -> None:
    """A lambda is told by where it stands."""
    (found,) = rows([limit("9/minute", when=lambda request: True)])
    assert f"when lambda (test_inspection.py:{test_functions_without_a_name.__code__.co_firstlineno + 2})" == found.note


@pytest.mark.parametrize(
    ("scope", "template", "groups", "condition"),
    [
        ({"prefix": "/api"}, "/api/x", (), ""),
        ({"prefix": "/api"}, "api/x", (), ""),
        ({"prefix": "/api"}, "/apiary", (), None),
        ({"prefix": "/api/v1"}, "/api", (), None),
        ({"prefix": "/api/v1"}, "/api/<version>/x", (), "where the path begins with /api/v1"),
        ({"prefix": "/api/v1"}, "/{rest:path}", (), "where the path begins with /api/v1"),
        ({"host": "a.test"}, "/", (), "where the host is a.test"),
        ({"host": "a.test", "prefix": "/a"}, "/<x>", (), "where the host is a.test and where the path begins with /a"),
        ({"group": "admin"}, "/", ("admin",), ""),
        ({"group": "admin"}, "/", (), None),
    ],
)
def test_scopes(scope: dict[str, Any], template: str, groups: tuple[str, ...], condition: str | None) -> None:
    """The limits of a scope are on each route that may lie in it; what depends on the request is its condition."""
    found = rows(
        [], template=template, groups=groups, limits=[], scopes=[{"name": "s", "limits": ["5/minute"], **scope}]
    )
    assert ([] if condition is None else [("scopes: s", condition or None)]) == [
        (one.source, one.condition) for one in found
    ]


def test_unattached() -> None:
    """A description knows which declarations none of its routes leads to."""
    served, lost = view_with(limit("1/minute")), view_with(limit("2/minute"))
    description = Description("test", make_runtime(), [RouteInfo("GET", "/", (served,))])
    found = {
        policy.quota for one in description.unattached() for policy in one.policies if "test_inspection.py" in one.where
    }  # type: ignore[attr-defined]  # limits
    assert ("2/minute" in found, "1/minute" in found, lost is not served) == (True, False, True)


def test_what_no_adapter_knows() -> None:
    """An object that is no application is an error that names the adapters there are."""
    with pytest.raises(ConfigurationError, match="no application of an installed adapter"):
        describe(object())


def test_keys_are_read_as_they_are_made() -> None:
    """Every kind of key says its scope, its quota and its identity again."""
    limits = make_runtime(prefix="a.b").limits
    for scope in ("app", "scope:x", "route:", "route:%2Fa", "shared:s:GET", "view:%2Fa%3A:m.f~1:POST"):
        for rule in (Quota(amount=5, window=60), Quota(amount=5, window=60, algorithm="gcra", burst=9), Penalty()):
            for identity in ("ip:192.0.2.1", "header:x:0f", "key:%7B:a", "ip:2001:db8::+user:4", "~0f"):
                for tail in ("", "/-1"):
                    key = f"{limits.head(scope)}:{rule.key}:{{{identity}}}{tail}"
                    assert (1, "rl", scope, rule.key, identity) == read_key(key, "a.b")
                    assert read_key(key, "a") is None
    assert [None, None] == [read_key("a:other", "a"), read_key("a:1:rl:app:5/60f", "a")]


def test_keys_of_sessions_are_read() -> None:
    """The keys of sessions are read as they are made, and the version that is held to be the present one is."""
    runtime = make_runtime(prefix="a.b", sessions=True, secret="a secret of 32 characters, and more")
    service = runtime.sessions
    assert service is not None
    assert (SESSIONS, "sess", "", "", "handle") == read_key(service.record_key("handle"), "a.b")
    subject = read_key(service.subject_key("somebody"), "a.b")
    assert subject is not None
    assert (SESSIONS, "subj", "", "") == subject[:4]
    assert {"rl": LIMITS, "sess": SESSIONS, "subj": SESSIONS} == SCHEMAS
    assert [None, None] == [read_key("a:1:sess:handle", "a"), read_key("a:1:sess:app:{handle}x", "a")]
