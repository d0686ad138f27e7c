"""Store URLs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failsoft.errors import ConfigurationError
from failsoft.stores.redis import RedisStore
from failsoft.stores.redis.url import parse_url
from tests.core.texts import any_text


@pytest.mark.parametrize(
    ("url", "address", "db"),
    [
        ("redis://localhost", {"host": "localhost", "port": 6379}, 0),
        ("redis://localhost:6380/3", {"host": "localhost", "port": 6380}, 3),
        ("REDIS://Cache.Example:1/", {"host": "cache.example", "port": 1}, 0),
        ("redis://[::1]:6380?db=2", {"host": "::1", "port": 6380}, 2),
        ("unix:///run/valkey/s.sock", {"path": "/run/valkey/s.sock"}, 0),
        ("unix:///run/a%20b?db=7", {"path": "/run/a b"}, 7),
    ],
)
def test_says_where(url: str, address: dict[str, object], db: int) -> None:
    """A URL gives the address and the database."""
    target = parse_url(url)

    assert (address, db) == (target.address, target.db)


@pytest.mark.parametrize("url", ["redis://me:se%2Fcr%40et@h:1/2", "unix://me:se%2Fcr%40et@/s?db=2"])
def test_credentials_are_decoded_and_masked(url: str) -> None:
    """The password is what was encoded, and is shown nowhere."""
    target = parse_url(url)

    assert ("me", "se/cr@et") == (target.username, target.password)
    assert "se" not in target.masked.replace("redis", "")
    assert "cr@et" not in repr(target)
    assert "me:***@" in target.masked
    assert "se/cr" not in repr(RedisStore(url))


def test_password_alone() -> None:
    """Without a user name the default user is meant."""
    target = parse_url("redis://:secret@h")

    assert (None, "secret", "redis://:***@h:6379/0") == (target.username, target.password, target.masked)


def test_options() -> None:
    """Options in the query are taken, and an argument of the store goes before them."""
    url = "redis://h?deadline=0.2&max_connections=5"

    store, other = RedisStore(url), RedisStore(url, deadline=0.05, max_connections=6)

    assert (0.2, 5) == (store.deadline, store.max_connections)
    assert (0.05, 6) == (other.deadline, other.max_connections)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "no scheme"),
        ("", "no scheme"),
        ("http://h", "'http'. Accepted are redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://"),
        ("redis://", "no host"),
        ("redis://:6379/0", "no host"),
        ("redis://h:port/0", "port is not a number"),
        ("redis://h:0/0", "port is not a number"),
        ("redis://h:70000/0", "port is not a number"),
        ("redis://h/name", "not the number of a database"),
        ("redis://h/1/2", "not the number of a database"),
        ("redis://h/-1", "not the number of a database"),
        ("redis://h/1?db=1", "names the database twice"),
        ("redis://h?db=1&db=2", "db twice"),
        ("redis://h?db=x", "db of a store is 'x'"),
        (
            "redis://h?timeout=1",
            "The option timeout of a store is not known; did you mean deadline? Known for its URL are",
        ),
        ("redis://h?x%20=1", "it has an option that is not known. Known for its URL are credentials, db, deadline"),
        ("redis://h?deadline", "query is malformed"),
        ("redis://h?deadline=9", "deadline of a store is '9'; give seconds from 0.01 to 5"),
        ("redis://h?deadline=nan", "deadline of a store is 'nan'"),
        ("redis://h?max_connections=0", "max_connections of a store is '0'"),
        ("redis://[::1", "host is malformed"),
        ("redis://h\n/0", "white space"),
        ("unix://run/s", "has a host"),
        ("unix://", "no path"),
        ("unix:///", "no path"),
        (b"redis://h", "of type bytes"),
        # Passwords that were not percent-encoded.
        ("redis://:pa/sswd@h", "percent-encoded"),
        ("redis://:pa?sswd@h", "percent-encoded"),
        ("redis://:pa#sswd@h", "percent-encoded"),
        ("unix://me:pa/sswd@/s", "percent-encoded"),
    ],
)
def test_mistakes(url: str, says: str) -> None:
    """A wrong URL is refused with its cause and its cure, without a piece of the password."""
    with pytest.raises(ConfigurationError) as refused:
        RedisStore(url)

    assert says in str(refused.value)
    assert "sswd" not in str(refused.value)


# What means something in a URL, or anything.
PARTS = st.text("/:@?#[]%&=;+ \\\té\0", max_size=8) | any_text(max_size=8)


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(
    st.sampled_from(["redis://:{}@host:6379/0", "redis://me:{}@host", "unix://:{}@/run/s", "redis://{}:@h", "{}"]),
    PARTS,
    PARTS,
)
def test_no_message_quotes_a_password(form: str, before: str, after: str) -> None:
    """Whatever a password is made of, and encoded or not, it is never quoted."""
    url = form.format(before + "Zx9Qk7" + after)
    try:
        target = parse_url(url)
    except ConfigurationError as error:
        said = str(error)
        cause = error.__cause__
    else:
        # With nothing but a colon behind it, what looks like a password is a user's name, which is shown.
        said = target.masked + repr(target) if "Zx9Qk7" in (target.password or "") else ""
        cause = None

    assert "Zx9Qk7" not in said
    assert cause is None


@pytest.mark.parametrize(
    "option", [{"deadline": 0}, {"deadline": "soon"}, {"max_connections": 1.5}, {"max_connections": True}]
)
def test_options_out_of_range(option: dict[str, object]) -> None:
    """Options given as arguments are checked like those of the URL."""
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        RedisStore("redis://h", **option)  # type: ignore[arg-type]  # that is the test
