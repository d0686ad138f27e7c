"""Which class requests belong to: by their views, by their routes, by nothing that clients choose."""

import pytest

from failsoft import ConfigurationError, criticality, limit
from failsoft.exchange import collect, declarations, unattached
from failsoft.ratelimit.shedding.criticality import Classes, rank
from failsoft.settings.criticality import CRITICALITIES

CLASSES = [*CRITICALITIES, "exempt"]


@pytest.mark.parametrize("name", CLASSES)
def test_decorator(name: str) -> None:
    """A view says its class, and is called as before."""

    @criticality(name)  # type: ignore[arg-type]  # each of the accepted ones
    def view() -> str:
        return "served"

    assert "served" == view()
    assert rank(name) == Classes([]).of_route("/", collect([view]))
    assert [f"criticality({name!r})"] == [repr(policy) for policy in collect([view])]


def test_decorator_refuses_what_is_no_class() -> None:
    """A class that does not exist is an error where it is written."""
    with pytest.raises(ConfigurationError, match=r"'critcal'.*'critical_plus'"):
        criticality("critcal")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ConfigurationError, match=r"'exempt'; did you mean 'sheddable'\?$"):
        criticality("shedable")  # type: ignore[arg-type]  # likewise
    with pytest.raises(ConfigurationError, match=r'Above .*page, write @criticality\("sheddable"\)'):

        @criticality  # type: ignore[arg-type]  # likewise
        def page() -> None: ...


def test_nearest_decorator_holds() -> None:
    """Of several, that nearest to the code holds: the inner one, and a handler's before its class's."""

    @criticality("critical_plus")
    @limit("9/minute")
    @criticality("sheddable")
    def view() -> None: ...

    class View:
        def dispatch(self) -> None: ...

        @criticality("sheddable_plus")
        def get(self) -> None: ...

    criticality("critical_plus")(View)
    classes = Classes([])
    assert rank("sheddable") == classes.of_route("/", collect([view]))
    assert rank("critical_plus") == classes.of_route("/", collect([View]))
    assert rank("sheddable_plus") == classes.of_route("/", collect([View, View.get]))


def test_decorator_before_settings() -> None:
    """What is written at a view holds, whatever the settings say of its route."""

    @criticality("sheddable")
    def view() -> None: ...

    classes = Classes([("/pay", "critical_plus"), ("*", "critical_plus")])
    assert rank("sheddable") == classes.of_route("/pay", collect([view]))
    assert rank("critical_plus") == classes.of_route("/pay", ())


def test_declared_twice_is_one() -> None:
    """The same class declared again is the same declaration; another is not."""

    def view() -> None: ...

    decorated = criticality("critical")(criticality("sheddable")(criticality("sheddable")(view)))
    assert ["criticality('critical')", "criticality('sheddable')"] == [repr(policy) for policy in collect([decorated])]


def test_on_no_route_it_is_reported() -> None:
    """A class on a function that no route leads to is reported, as every lost declaration is."""

    @criticality("sheddable")
    def lost() -> None: ...

    assert any(lost.__qualname__ in declaration.name for declaration in unattached([]))
    assert any(lost.__qualname__ in declaration.name for declaration in declarations())


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/reports", "sheddable"),
        ("/reports/", "sheddable"),
        ("/reports/{id}", "sheddable_plus"),
        ("/reports/{id}/lines", "sheddable_plus"),
        ("/reports/<int:id>", "sheddable"),
        ("reports/<int:id>/", "sheddable"),
        ("^reports/(?P<id>[0-9]+)/$", "sheddable"),
        ("/reporting", "critical"),
        ("/reports2", "critical"),
        ("/", "critical"),
        ("", "critical"),
        (None, "critical"),
        ("/healthz", "exempt"),
        ("healthz/", "exempt"),
        ("^livez$", "exempt"),
        ("/readyz", "exempt"),
        ("/healthzz", "critical"),
        ("/pay/{order}", "critical_plus"),
    ],
)
def test_settings(place: str | None, expected: str) -> None:
    """The longest key that fits holds, in whole segments, in each framework's way of writing routes."""
    rules = [("/reports", "sheddable"), ("/reports/{id}", "sheddable_plus"), ("/pay/", "critical_plus")]
    classes = Classes(rules)
    assert rank(expected) == classes.of_route(place, ())
    if place is not None:
        assert rank(expected) == classes.of_path(place)


def test_default_class() -> None:
    """The star is for whatever no other key is about, and never for health checks."""
    classes = Classes([("*", "sheddable"), ("/pay", "critical")])
    assert [0, 0, 2, None] == [classes.of_route(place, ()) for place in (None, "/", "/pay", "/livez")]


def test_health_checks_can_be_named_too() -> None:
    """What is exempt without being named can be given a class."""
    assert rank("critical_plus") == Classes([("/readyz", "critical_plus")]).of_path("/readyz")
