"""URLs of storages that only `limits` knows."""

import pytest

from failsoft.errors import ConfigurationError
from failsoft.stores.storages import LimitsStore
from failsoft.stores.storages.url import parse_storage_url


@pytest.mark.parametrize(
    ("url", "clean", "masked"),
    [
        ("memcached://h", "memcached://h:11211", "memcached://h:11211"),
        ("memcached://h:1?deadline=0.2", "memcached://h:1", "memcached://h:1"),
        ("Memcached://[::1]:5/", "memcached://[::1]:5", "memcached://[::1]:5"),
        ("mongodb://h", "mongodb://h:27017/", "mongodb://h:27017/"),
        (
            "mongodb://me:s%40ec@h:1,i:2/db?replicaSet=r&deadline=0.2&w=1",
            "mongodb://me:s%40ec@h:1,i:2/db?replicaSet=r&w=1",
            "mongodb://me:***@h:1,i:2/db",
        ),
        ("mongodb+srv://me:sec@h/db", "mongodb+srv://me:sec@h/db", "mongodb+srv://me:***@h/db"),
    ],
)
def test_what_urls_mean(url: str, clean: str, masked: str) -> None:
    """What the clients are given, and the URL as it may be shown."""
    place = parse_storage_url(url)

    assert (clean, masked) == (place.url, place.masked)
    assert "sec" not in repr(place)


def test_options() -> None:
    """Ours are taken out of the query; they may stand beside the URL as well, as may the driver's."""
    place = parse_storage_url("mongodb://h/limits?deadline=0.2&max_connections=7")
    beside = parse_storage_url("mongodb://h", {"deadline": 0.2, "max_connections": 7, "replicaset": "r"})

    assert (0.2, 7, "limits") == (place.deadline, place.max_connections, place.database)
    assert (0.2, 7, "failsoft") == (beside.deadline, beside.max_connections, beside.database)
    assert "mongodb://h:27017/?replicaset=r" == beside.url
    store = LimitsStore("memcached://h?deadline=0.2", deadline=0.3, max_connections=9)
    assert (0.3, 9) == (store.deadline, store.max_connections)


@pytest.mark.parametrize(
    "url",
    [
        "memcached://",
        "memcached://me:secret@h",
        "memcached:///secret/path",
        "memcached://h/secret",
        "memcached://h?secret=1",
        "memcached://h:secret",
        "memcached://h:0",
        "memcached://h:99999",
        "memcached://h,i",
        "memcached://h?deadline=1&deadline=2",
        "memcached://h?x",
        "memcached://h h",
        "mongodb://",
        "mongodb://me:sec/ret@h",
        "mongodb://me:sec?ret@h",
        "mongodb://me:sec#ret@h",
        "mongodb://me:sec@ret@h",
        "mongodb://me:sec:ret@h",
        "mongodb://me:sec%ret@h",
        "mongodb://h?nonsense=secret",
        "redis://h",
    ],
)
def test_wrong_urls(url: str) -> None:
    """A wrong URL is refused at start; the message says what is wrong and quotes nothing that may be a password."""
    with pytest.raises(ConfigurationError, match=r"The URL of a store is wrong: .+\. .+\.") as raised:
        LimitsStore(url)

    assert "sec" not in str(raised.value)
    assert "ret" not in str(raised.value)


@pytest.mark.parametrize("option", [{"deadline": 0}, {"deadline": "soon"}, {"max_connections": 0}])
def test_options_out_of_range(option: dict[str, object]) -> None:
    """They name the option and what it accepts."""
    with pytest.raises(ConfigurationError, match=f"option {next(iter(option))} of a store is .*; give "):
        LimitsStore("memcached://h", **option)  # type: ignore[arg-type]  # that is the test
