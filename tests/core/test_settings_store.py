"""The setting `store`: a URL, or a table with the URL and options beside it."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.settings import Settings, SettingsError
from failsoft.settings.urls import SCHEMES, StoreUrl, is_legible
from failsoft.stores import open_store
from failsoft.stores.redis import RedisStore

SECRET = "Zx9Qk7"


class Provider:
    """A credentials provider."""

    def get_credentials(self) -> tuple[str, ...]:
        return (SECRET,)


def options_of(made: Settings) -> dict[str, Any]:
    """What is said beside the URL."""
    return dict(getattr(made.store, "options", {}))


def test_a_table() -> None:
    """The URL is a URL as any, and what stands beside it is kept as it is, objects too."""
    provider = Provider()

    made = Settings.from_mapping({"STORE": {"URL": "REDISS://h", "credentials": provider, "tls_ca": "/x"}})

    assert "rediss://h" == str(made.store)
    assert {"credentials": provider, "tls_ca": "/x"} == options_of(made)
    assert made == Settings(store=made.store)
    assert made != Settings(store="rediss://h")


def test_a_table_in_the_environment() -> None:
    """An environment has it as JSON."""
    made = Settings.from_env({"FAILSOFT_STORE": '{"url": "redis://h", "deadline": 0.2, "db": 3}'})

    assert ("redis://h", {"deadline": 0.2, "db": 3}) == (str(made.store), options_of(made))


def test_a_table_in_toml(tmp_path: Any) -> None:
    """TOML has it as a table."""
    path = tmp_path / "failsoft.toml"
    path.write_text('[failsoft.store]\nurl = "redis+sentinel://a,b/cache"\nsentinel_password = "Zx9Qk7"\n')

    made = Settings.from_toml(path)

    assert ("redis+sentinel://a,b/cache", {"sentinel_password": SECRET}) == (str(made.store), options_of(made))


def test_nothing_beside_it() -> None:
    """A table with a URL alone is that URL."""
    assert type(Settings(store={"url": "redis://h"}).store) is str  # type: ignore[arg-type]  # what users write


def test_no_secret_is_shown() -> None:
    """What stands beside the URL is shown in no representation."""
    made = Settings.from_mapping({"store": {"url": f"redis://:{SECRET}@h", "sentinel_password": SECRET}})

    assert SECRET not in repr(made)


def test_copies() -> None:
    """A URL with options survives a copy, and a pickle."""
    made = StoreUrl("redis://h", {"db": 1})

    for other in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):  # noqa: S301  # our own
        assert (made, {"db": 1}, hash(made)) == (other, dict(other.options), hash(other))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "the table has no url"),
        ({"password": SECRET}, "the table has no url"),
        ({"url": 5}, "a int was given"),
        ({"url": f"redsi://:{SECRET}@h"}, "the scheme redsi:// is not known"),
        ({"url": "memory://", "db": 1}, "memory:// has no options"),
        ('{"url": ', "no JSON object"),
        (f'{{"url": "redis://:{SECRET}/@h"}}', "cannot be told apart"),
        ("redis+sentinel://a:1,b:x/cache", "cannot be told apart"),
        (f"redis+sentinel://a,:{SECRET}", "cannot be told apart"),
    ],
)
def test_mistakes(given: Any, says: str) -> None:
    """A wrong table is a problem of the setting, and shows nothing of what is in it."""
    with pytest.raises(SettingsError) as caught:
        Settings(store=given)

    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://me:pw@h:6379/0?tls_ca=/a/b.pem",
        "unix://me:pw@/run/s?db=1",
        "redis+sentinel://me:pw@a:1,b:2,[::1]:3/cache/0",
        "redis+cluster://a,b:2",
        "redis://[::1]:6379",
        "memcached://a:11211,b",
        "mongodb+srv://me:pw@h/db?retryWrites=false",
    ],
)
def test_legible(url: str) -> None:
    """URLs of every kind are let through; the store reads the rest."""
    assert is_legible(url)
    assert url == Settings(store=url).store


@settings(deadline=None)
@given(st.sampled_from(SCHEMES), st.text(max_size=20))
def test_legible_never_raises(scheme: str, rest: str) -> None:
    """Whatever stands there, the question has an answer."""
    assert is_legible(f"{scheme}://{rest}") in (True, False)


def test_the_store_has_what_stands_beside_its_url() -> None:
    """A store is opened with the options of its table."""
    made = Settings(store={"url": "redis://h", "db": 3, "deadline": "0.2"})  # type: ignore[arg-type]  # what users write

    store = open_store(made)

    assert isinstance(store, RedisStore)
    assert ("redis://h:6379/3", 0.2) == (store.url, store.deadline)
    store.close()
