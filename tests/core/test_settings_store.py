"""The setting `store`: a URL, or a table with the URL and options beside it."""

import copy
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.settings import Settings, SettingsError
from failsoft.settings.urls import SCHEMES, StoreMistake, StoreUrl, is_legible
from failsoft.stores import open_store
from failsoft.stores.redis import RedisStore
from tests.core.texts import any_text

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
    made = Settings.from_mapping({"store": {"url": f"redis+sentinel://:{SECRET}@h/s", "sentinel_password": SECRET}})

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
    ("given", "message", "hint"),
    [
        ("redis://", "the redis:// URL is wrong: it has no host", "write redis://host:port/db"),
        (
            "redis://h:637900",
            "the port of the redis:// URL is not a number from 1 to 65535",
            "write host:port; in a user",
        ),
        (f"redis://:{SECRET}@h:0", "the port of the redis:// URL is not a number from 1 to 65535", "write host:port"),
        ("redis://h?ssl=true", "the option ssl of the redis:// URL is not known", "TLS is in the scheme: write rediss"),
        ("redis+cluster://h?ssl_certfile=/x", "ssl_certfile of the redis+cluster:// URL is not known", "write rediss"),
        ("rediss://h?ssl=true", "the option ssl of the rediss:// URL is not known", "known for its URL are"),
        ("redis://h/abc", "the redis:// URL is wrong: its path is not the number of a database", "write redis://host"),
        ("redis://h?tiemout=1", "the option tiemout of the redis:// URL is not known", "did you mean deadline? Known"),
        ({"url": "redis://h", "deadlin": 1}, "the option deadlin of the redis:// URL is not known", "mean deadline?"),
        ({"url": "redis://h", "pw": SECRET}, "the option pw of the redis:// URL is not known", "known for its URL are"),
        ("rediss://h?ssl_ca_certs=/x", "the option ssl_ca_certs of the rediss:// URL is not known", "mean tls_ca?"),
        (
            "rediss://h?tls_verify=ful",
            "the option tls_verify of the rediss:// URL is 'ful'",
            "did you mean 'full'? Give",
        ),
        ("rediss://h?tls_minimum=1.1", "the option tls_minimum of the rediss:// URL is '1.1'", "give one of 1.2, 1.3"),
        ("rediss://h?tls_key=/x", "tls_key of the rediss:// URL is of no use without tls_certificate", "give both"),
        ("unix://", "the unix:// URL is wrong: it has no path", "write unix:///path/to/socket"),
        (
            "redis+sentinel://h",
            "the redis+sentinel:// URL is wrong: it has no name of a service",
            "write redis+sentinel",
        ),
        (
            "redis+cluster://h/5",
            "the redis+cluster:// URL is wrong: its path is not that of database 0",
            "write redis+",
        ),
        ("redis+cluster://h?dbb=0", "the option dbb of the redis+cluster:// URL is not known", "did you mean db?"),
        ("memcached://", "the memcached:// URL is wrong: one of its hosts is missing", "write host:port"),
        ("mongodb://h?deadline=9", "the option deadline of the mongodb:// URL is '9'", "give seconds from 0.01 to 5"),
        ("embedded://a:b", "An embedded URL is embedded://, embedded://name", "accepted: a "),
    ],
)
def test_what_is_wrong_with_a_url(given: Any, message: str, hint: str) -> None:
    """Each store's own rules are looked at with all other settings, and a mistake says where it is and what to write."""
    for named, where in ((given, "FAILSOFT['store']"), ({"a": "memory://", "b": given}, "FAILSOFT['stores']")):
        key, number = ("store", 10) if named is given else ("stores", 36)
        with pytest.raises(SettingsError) as caught:
            Settings.load({key: named, "workers": 0}, environ={})

        problem, other = caught.value.problems
        assert (f"failsoft.E{number}2", key, where) == (problem.id, problem.key, problem.where)
        assert message in problem.message
        assert problem.message.startswith("b: ") == (key == "stores")
        assert hint in problem.hint
        assert "workers" == other.key
        assert SECRET not in str(caught.value)


def test_every_wrong_store_is_told() -> None:
    """Of several stores, each wrong one is named."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(
            {"stores": {"a": "redis://", "b": "redis://h", "c": "unix://", "default": "memory://"}}, environ={}
        )

    (problem,) = caught.value.problems
    assert (
        "a: the redis:// URL is wrong: it has no host; c: the unix:// URL is wrong: it has no path; "
        "'default' is no name of a further store"
    ) == problem.message


def test_looking_opens_nothing() -> None:
    """Files and credentials are for those who open the store: a machine that only reads settings may have neither."""
    beside = {"url": "rediss://h", "tls_ca": "/no/such/file", "credentials": "no.such:provider"}

    assert beside["url"] == str(Settings(store=beside).store)  # type: ignore[arg-type]  # what users write


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (
            "tls_ca",
            "the option tls_ca of the rediss:// URL is wrong: '/no/such' cannot be read (No such file or directory)",
        ),
        ("credentials", "the option credentials of the rediss:// URL is wrong: '/no/such' cannot be imported"),
    ],
)
@pytest.mark.parametrize(("name", "id_"), [("default", "failsoft.E102"), ("b", "failsoft.E362")])
def test_what_only_opening_shows_names_the_setting(option: str, says: str, name: str, id_: str) -> None:
    """A file that is missing is told as a mistake of that store's setting."""
    made = Settings(store={"url": "rediss://h", option: "/no/such"})  # type: ignore[arg-type]  # what users write

    with pytest.raises(SettingsError) as caught:
        open_store(made, name=name)

    (problem,) = caught.value.problems
    assert (id_, "store" if name == "default" else "stores['b']") == (problem.id, problem.where)
    assert says in problem.message


def test_mistakes_of_stores_can_be_copied() -> None:
    """They survive a pickle, as exceptions must that come from another process."""
    mistake = StoreMistake("is 'x'", "give another", "db")

    assert "The option db of a store is 'x'; give another." == str(pickle.loads(pickle.dumps(mistake)))  # noqa: S301  # our own


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-py, settings that name a Redis say so, with the install line."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis" or ".stores.redis" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(SettingsError, match=r"store: A store on a Redis .* pip install 'failsoft\[redis\]'"):
        Settings(store="redis://h")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://me:pw@h:6379/0?tls_ca=/a/b.pem",
        "unix://me:pw@/run/s?db=1",
        "redis+sentinel://me:pw@a:1,b:2,[::1]:3/cache/0",
        "redis+cluster://a,b:2",
        "redis://[::1]:6379",
        "memcached://a:11211",
        "mongodb+srv://me:pw@h/db?retryWrites=false",
    ],
)
def test_legible(url: str) -> None:
    """URLs of every kind are let through; the store reads the rest."""
    assert is_legible(url)
    assert url == Settings(store=url).store


@settings(deadline=None)
@given(st.sampled_from(SCHEMES), any_text(max_size=20))
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
