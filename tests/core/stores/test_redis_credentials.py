"""Credentials that change, and options beside the URL."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from failsoft.errors import ConfigurationError, StoreUnavailable
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.url import parse_url
from tests.core.stores.conftest import Ahead, Fly
from tests.core.stores.lua import ECHO, Lua
from tests.servers import Impostor, Valkey, poll

Opener = Callable[..., RedisStore]
Warm = Callable[[RedisStore], None]

FLIGHT = [Lua(ECHO, arguments=("x",))]


class Rotating(redis.CredentialProvider):
    """Gives the credentials that the test sets."""

    def __init__(self, *credentials: str) -> None:
        self.credentials = credentials
        self.asked = 0

    def get_credentials(self) -> Any:
        self.asked += 1
        return self.credentials


PROVIDER = Rotating("ann", "pa55")


def make() -> Rotating:
    """A provider, when it is needed."""
    return Rotating("ann", "pa55")


class Bare:
    """A provider that is no subclass of redis-py's, and is made without arguments."""

    def get_credentials(self) -> tuple[str, str]:
        return "ann", "pa55"


def fail() -> Any:
    """Makes none."""
    raise LookupError("Zx9Qk7")


@pytest.fixture
def guarded(mortal: Valkey) -> Valkey:
    """A server that lets nobody in but ann."""
    mortal.run("ACL", "SETUSER", "ann", "on", ">pa55", "~*", "+@all")
    return mortal


@pytest.mark.parametrize(
    "provider", [PROVIDER, make, Bare, Bare(), f"{__name__}:PROVIDER", f"{__name__}.make", f"{__name__}:Bare"]
)
def test_providers(
    guarded: Valkey, open_store: Opener, fly: Fly, warm: Warm, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider may be an object, a class, a function, or the dotted path of one."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules[make.__module__])
    store = open_store(guarded.url, options={"credentials": provider}, deadline=2.0)

    warm(store)

    assert "user=ann" in guarded.run("CLIENT", "LIST").decode()


def test_asked_for_each_connection(guarded: Valkey, open_store: Opener, fly: Fly, warm: Warm, clock: Ahead) -> None:
    """A password that was rotated is told to the server within 30 s, and no flight notices."""
    provider = Rotating("ann", "pa55")
    store = open_store(guarded.url, options={"credentials": provider}, deadline=2.0, clock=clock)
    warm(store)
    before = provider.asked
    guarded.run("ACL", "SETUSER", "ann", ">another", "<pa55")
    provider.credentials = ("ann", "another")

    clock.ahead += 31.0
    store._connector.nudge()

    poll(lambda: provider.asked > before)
    warm(store)
    assert store.breaker.closed


@pytest.mark.parametrize("credentials", [("ann", "Zx9Qk7"), ("Zx9Qk7",)])
def test_what_was_given_is_not_shown(
    guarded: Valkey, open_store: Opener, fly: Fly, credentials: tuple[str, ...]
) -> None:
    """Wrong credentials are a refusal without them, also where a server repeats what it was told."""

    def answer(connection: Any, data: bytes) -> None:
        connection.sendall(b"-ERR what is Zx9Qk7?\r\n")

    provider = Rotating(*credentials)
    with Impostor(answer) as impostor:
        for url in (guarded.url, impostor.url):
            store = open_store(url, options={"credentials": provider}, deadline=2.0)
            with pytest.raises(StoreUnavailable) as failure:
                fly(store, FLIGHT)
            assert "last failure" in str(failure.value)
            assert "Zx9Qk7" not in str(failure.value) + repr(store) + repr(parse_url(url, {"credentials": provider}))


def test_a_provider_that_fails(guarded: Valkey, open_store: Opener, fly: Fly, warm: Warm) -> None:
    """While a provider raises, or gives nothing, there is no connection; afterwards there is."""

    class Failing(Rotating):
        def get_credentials(self) -> Any:
            if not self.credentials:
                raise LookupError("no credentials today")
            return super().get_credentials()

    provider = Failing()
    store = open_store(guarded.url, options={"credentials": provider}, deadline=2.0)
    with pytest.raises(StoreUnavailable, match="LookupError: no credentials today"):
        fly(store, FLIGHT)

    provider.credentials = ("ann", "pa55")

    warm(store)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        (
            "redis://h",
            {"credentials": object()},
            "credentials of a store is wrong: an object of type object has no get_",
        ),
        ("redis://h", {"credentials": "no.such:thing"}, "'no.such:thing' cannot be imported (ModuleNotFoundError"),
        ("redis://h", {"credentials": "math:nothing"}, "'math:nothing' cannot be imported (AttributeError"),
        ("redis://h", {"credentials": "nothing"}, "'nothing' cannot be imported (ValueError"),
        ("redis://h", {"credentials": fail}, "making it raised LookupError"),
        ("redis://ann:Zx9Qk7@h", {"credentials": PROVIDER}, "it has a user or a password, and there is a credentials"),
        ("redis://h?db=1", {"db": 2}, "it has db, which is given beside it as well"),
        ("redis://h/1", {"db": 2}, "names the database twice"),
        ("redis://h", {"db": "x"}, "db of a store is 'x'"),
        ("redis://h", {"dbb": 1}, "The option dbb of a store is not known; did you mean db? Known for its URL are"),
        ("redis://h", {"tls_ca": "/x"}, "tls_ca of a store does not go with its URL"),
        ("rediss://h", {"tls_ca": 5}, "tls_ca of a store is no path"),
        ("rediss://h", {"tls_key_password": 5}, "tls_key_password of a store is empty or no text"),
    ],
)
def test_mistakes(url: str, options: dict[str, Any], says: str) -> None:
    """Options beside the URL are checked like those in it."""
    with pytest.raises(ConfigurationError) as refused:
        RedisStore(url, options=options)

    assert says in str(refused.value)
    assert "Zx9Qk7" not in str(refused.value)


def test_options_beside_the_url() -> None:
    """What may stand in the query may stand beside the URL, as what it is."""
    store = RedisStore("redis://h", options={"deadline": 0.2, "max_connections": 5, "db": 3})

    assert (0.2, 5, "redis://h:6379/3") == (store.deadline, store.max_connections, store.url)
