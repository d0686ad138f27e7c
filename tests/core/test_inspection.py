"""What applies where, for people."""

from typing import Any

import pytest

from failsoft import ConfigurationError, exempt, late, limit
from failsoft.inspection import Description, LimitInfo, RouteInfo, describe, limits_of
from tests.core.requests import make_runtime


def lookup(*args: Any) -> str:
    """Whom a limit counts."""
    return "x"


def view_with(*policies: Any) -> Any:
    def view() -> None: ...

    for policy in reversed(policies):
        view = policy(view)
    return view


def rows(policies: Any, *, method: str = "GET", **settings: Any) -> list[LimitInfo]:
    return limits_of(make_runtime(**settings), RouteInfo(method, "/a", (view_with(*policies),)))


def test_settings_and_own_limits_in_order() -> None:
    """The settings' limits come first, then the view's own, as they are decided; each says where it is from."""
    found = rows(
        [limit("9/second burst 20"), limit("7/hour", on_outage="open")], limits=["100/day"], route_limits=["5/minute"]
    )
    place = f"{__name__}.view_with.<locals>.view"
    assert [
        LimitInfo("100 per 86400 s", "ip", "limits", "local", ""),
        LimitInfo("9 per 1 s burst 20", "ip", place, "local", ""),
        LimitInfo("7 per 3600 s", "ip", place, "open", ""),
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
    ],
)
def test_in_words(policy: Any, quota: str, by: str, note: str) -> None:
    """What depends on the request is told by the name of the function that it depends on."""
    assert [(quota, by, note)] == [(one.quota, one.by, one.note) for one in rows([policy])]


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
