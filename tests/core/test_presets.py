"""Ready-made limits, without a framework: what a log-in's limits are, and when two names are one account."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings

from failsoft import ConfigurationError, OutsideRequest, Penalty, hashed, limit
from failsoft.exchange import collect, json_field
from failsoft.inspection import Description, Trial, Tried
from failsoft.inspection.explanation import explain
from failsoft.presets import _one_spelling as one_spelling
from failsoft.presets import login, submitted
from failsoft.runtime import runtimes
from failsoft.testing import FaultyStore
from tests.core.requests import FakeFacts, make_runtime, serve
from tests.core.texts import any_text


@pytest.fixture(autouse=True)
def _close_runtimes() -> Iterator[None]:
    """No runtime outlives its test: other tests hold all that live to a clock."""
    known = runtimes()
    yield
    for runtime in runtimes():
        if runtime not in known:
            runtime.close()


class Submitting(FakeFacts):
    """A request that submits something."""

    __slots__ = ("fields",)

    def __init__(self, endpoint: Any, fields: dict[str, str], **options: Any) -> None:
        super().__init__(endpoint, method="POST", **options)
        self.fields = fields

    def submitted(self, name: str) -> str | None:
        return self.fields.get(name)


class SubmittingLater(Submitting):
    """The same, where a body has to be awaited."""

    __slots__ = ()

    def submitted(self, name: str) -> Any:
        async def later() -> str | None:
            return self.fields.get(name)

        return later()


def limits_of(**options: Any) -> dict[str, tuple[Any, ...]]:
    """The limits that `login` declares: quota, shared name, penalty and what is done in an outage, by name."""
    found = collect((login(**options)(lambda: None),))
    return {one.name: (one.quota, one.shared, one.penalty is not None, one.on_outage) for one in found}  # type: ignore[attr-defined]  # limits


def test_defaults() -> None:
    """By default there are three limits, closed in an outage; the account's own punishes nobody."""
    assert {
        "login": ("5/minute; 20/hour", "login-client", True, "closed"),
        "login-account": ("100/hour", "login-account", False, "closed"),
        "login-address": ("30/minute", "login-address", True, "closed"),
    } == limits_of()


def test_each_limit_can_be_left_out() -> None:
    """A limit that is None is not there; without any there is nothing to declare, which is a mistake."""
    assert ["x-account", "x-address"] == list(limits_of(per_client=None, name="x"))
    assert ["login"] == list(limits_of(per_account=None, per_address=None))
    with pytest.raises(ConfigurationError, match="per_client, per_account and per_address"):
        login(per_client=None, per_account=None, per_address=None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": ""},
        {"account": 7},
        {"per_client": "often"},
        {"on_outage": "maybe"},
        {"name": "a b"},
        {"methods": "POST"},
    ],
)
def test_mistakes(wrong: dict[str, Any]) -> None:
    """A wrong argument is a mistake at once."""
    with pytest.raises(ConfigurationError):
        login(**wrong)


@pytest.mark.parametrize(
    "use",
    [
        lambda view: view.__name__,  # Flask
        inspect.signature,  # FastAPI
        lambda view: view(object()),  # Django
        lambda view: view({}, None, None),  # Starlette
    ],
)
def test_without_parentheses(use: Any) -> None:
    """Whoever writes @login without parentheses is told at once where the view takes no request, else when a framework has the result."""

    def page() -> str:
        return "served"

    def view(request: Any) -> str:
        return "served"

    with pytest.raises(ConfigurationError, match=r"its parameters are \(\).*: .*Above a view, write @login\(\)$"):
        login(page)
    with pytest.raises((ConfigurationError, AttributeError, ValueError), match=r"write @login\(\) above .*view"):
        use(login(view))


def test_an_account_from_a_function_makes_a_decorator() -> None:
    """What is meant to be a decorator remains one, and decorates functions and static methods."""
    decorator = login(lambda request: "alice")
    assert (False, None) == (hasattr(decorator, "__name__"), getattr(login(), "__name__", None))
    assert 3 == len(collect((decorator(lambda: None),)))
    with pytest.raises(ConfigurationError, match="below @staticmethod"):
        decorator(staticmethod(lambda: None))
    with pytest.raises(TypeError):
        login()(lambda: None, 1)


@pytest.mark.parametrize("kind", [Submitting, SubmittingLater])
def test_accounts(kind: Any) -> None:
    """The account is found where the framework submits it, awaited or not, and none of it is in any key."""
    store = FaultyStore()
    runtime = make_runtime(store=store)
    endpoint = login("mail", per_client="2/minute", penalty=None)(lambda: None)
    names = ["Alice@Example.com", " alice@example.com", "ALICE@example.com", "bob@example.com"]
    assert [200, 200, 429, 200] == [serve(runtime, kind(endpoint, {"mail": name}))[0] for name in names]
    assert [] == [key for key in store.keys if "alice" in key.lower() or "example" in key]


def test_one_flight() -> None:
    """An attempt is one operation in one flight."""
    store = FaultyStore()
    endpoint = login()(lambda: None)
    serve(make_runtime(store=store), Submitting(endpoint, {"username": "alice"}))
    assert [("ratelimit.acquire",)] == list(store.flights)


def test_methods() -> None:
    """Only the methods that submit are charged; None stands for all."""
    for methods, expected in ((("POST",), []), (("PUT", "POST"), []), (None, [("ratelimit.acquire",)])):
        store = FaultyStore()
        facts = Submitting(login(methods=methods)(lambda: None), {})
        facts.method = "GET"
        serve(make_runtime(store=store), facts)
        assert expected == list(store.flights)


def test_keys_depend_on_the_secret() -> None:
    """Digests of accounts are keyed with the setting `secret`."""
    keys = []
    for secret in ("0123456789abcdef", "fedcba9876543210", "0123456789abcdef"):
        store = FaultyStore()
        endpoint = limit("9/minute", by=hashed(submitted("who")), shared="x")(lambda: None)
        serve(make_runtime(store=store, secret=secret), Submitting(endpoint, {"who": "alice"}))
        keys.append(sorted(store.keys))
    assert (True, False) == (keys[0] == keys[2], keys[0] == keys[1])


def test_outside_a_request() -> None:
    """What is submitted can only be asked of a request."""
    with pytest.raises(OutsideRequest, match="username"):
        submitted("username")(None)


@pytest.mark.parametrize("field", ["", None, 7])
def test_fields_without_a_name(field: Any) -> None:
    """A field needs a name."""
    with pytest.raises(ConfigurationError, match="submitted"):
        submitted(field)


def test_penalty_of_ones_own() -> None:
    """The penalty is the caller's to choose."""
    own = Penalty(after=9)
    found = collect((login(penalty=own)(lambda: None),))
    assert [own, None, own] == [policy.penalty for policy in found]  # type: ignore[attr-defined]  # limits


def test_one_spelling_of_known_names() -> None:
    """Capitals, widths, compositions and blanks make no other account; other letters do."""
    same = ["Zoë", "zoe\u0308", " ZOË ", "\uff3a\uff4f\u00eb", "zoë\t"]
    assert {"zoë"} == {one_spelling(name) for name in same}
    assert "zoe" == one_spelling("Zoe")
    assert one_spelling("STRASSE") == one_spelling("straße")
    assert None is one_spelling(None)
    assert "" == one_spelling("   ")


@given(any_text(max_size=60))
@settings(deadline=None)
def test_one_spelling_is_one(name: str) -> None:
    """However often a name is brought into its one spelling, it is the same; so is that of its capitals."""
    once = one_spelling(name)
    assert once == one_spelling(once)
    assert one_spelling(name.casefold()) == one_spelling(name)


def test_long_names() -> None:
    """Of a name of any length no more is looked at than names have."""
    assert one_spelling("x" * 10**6) == "x" * 1024


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": "x"}', "x"),
        (b'{"a": 7}', "7"),
        (b'{"a": "x", "a": "y"}', "y"),
        ('{"a": "ä"}'.encode("utf-16"), "ä"),
        (b'{"a": true}', None),
        (b'{"a": 1.5}', None),
        (b'{"a": ["x"]}', None),
        (b'{"b": "x"}', None),
        (b'["a"]', None),
        (b"", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_json_field(body: bytes, expected: str | None) -> None:
    """A field of a JSON object is its text or whole number; of anything else there is none, and nothing fails."""
    assert expected == json_field(body, "a")


def test_later_is_awaited() -> None:
    """A function of one's own may be asynchronous."""

    async def account(request: Any) -> str:
        return "Alice"

    found = login(account, per_client="1/minute", penalty=None)(lambda: None)
    runtime = make_runtime(store=FaultyStore())
    assert [200, 429] == [serve(runtime, Submitting(found, {}))[0] for _ in range(2)]


def test_accounts_are_explained() -> None:
    """What would count an attempt can be asked of a request that is made up; limited functions that are asked for it are not charged."""
    store = FaultyStore()
    runtime = make_runtime(store=store)
    helper = limit("1/minute", shared="helper")(lambda: None)

    def account(request: Any) -> Any:
        helper()
        return submitted("mail")(request)

    endpoint = login(account)(lambda: None)

    @contextmanager
    def trial(_: Trial) -> Iterator[Tried]:
        yield Tried(Submitting(endpoint, {"mail": "alice"}))

    explained = explain(Description("none", runtime, [], trial), Trial(method="POST", target="/"))
    assert [True] * len(explained.limits) == [one.applies for one in explained.limits]
    assert [] == list(store.flights)
    endpoint = login("mail")(lambda: None)
    serve(runtime, Submitting(endpoint, {"mail": "Alice "}))
    assert store.keys <= {one.key for one in explained.limits}
