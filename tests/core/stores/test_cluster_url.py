"""URLs of clusters: what they mean, and that a wrong one is refused at start without a word of its password."""

import pytest

from failsoft.errors import ConfigurationError
from failsoft.stores.cluster import ClusterStore
from failsoft.stores.cluster.url import parse_cluster_url


@pytest.mark.parametrize(
    ("url", "addresses", "masked"),
    [
        ("redis+cluster://h", [("h", 6379)], "redis+cluster://h:6379"),
        ("redis+cluster://a:1,b:2,a:1/", [("a", 1), ("b", 2)], "redis+cluster://a:1,b:2,a:1"),
        ("redis+cluster://[::1]:7,h/0", [("::1", 7), ("h", 6379)], "redis+cluster://[::1]:7,h:6379"),
        ("Redis+Cluster://me:s%2Cec@a:1,b:2", [("a", 1), ("b", 2)], "redis+cluster://me:***@a:1,b:2"),
        ("redis+cluster://:sec@a:1", [("a", 1)], "redis+cluster://:***@a:1"),
    ],
)
def test_what_urls_mean(url: str, addresses: list[tuple[str, int]], masked: str) -> None:
    """The nodes that a URL names, and the URL as it may be shown."""
    seeds = parse_cluster_url(url)

    assert addresses == list(seeds.addresses)
    assert masked == seeds.masked
    assert "sec" not in repr(seeds)


def test_every_node_is_entered_alike() -> None:
    """What the URL says beside its hosts holds for each node, also for those that it does not name."""
    seeds = parse_cluster_url("redis+cluster://me:p%40ss@a:1,b:2?deadline=0.2&max_connections=7")

    target = seeds.target_of(("::1", 9))

    assert {"host": "::1", "port": 9} == target.address
    assert ("me", "p@ss", 0.2, 7) == (target.username, target.password, target.deadline, target.max_connections)
    assert (0.2, 7) == (seeds.deadline, seeds.max_connections)


def test_the_store_takes_its_options_from_the_url() -> None:
    """Arguments win over the URL, and both over the defaults."""
    store = ClusterStore("redis+cluster://me:sec@h?deadline=0.2&max_connections=7", deadline=0.3)

    assert (0.3, 7) == (store.deadline, store.max_connections)
    assert "ClusterStore('redis+cluster://me:***@h:6379', name='default')" == repr(store)
    assert 0.1 == ClusterStore("redis+cluster://h").deadline


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://h,",
        "redis+cluster://me:secret@",
        "redis+cluster://me:sec/ret@h:1,i:2",
        "redis+cluster://me:sec?ret@h:1",
        "redis+cluster://me:sec#ret@h:1",
        "redis+cluster://secret:h:1",
        "redis+cluster://h:1/1",
        "redis+cluster://h:1?db=1",
        "redis+cluster://h:1:secret",
        "redis+cluster://h:secret",
        "redis+cluster://h:99999",
        "redis+cluster://[::1",
        "redis+cluster://h/secret",
        "redis+cluster://h?ddb=secret",
        "redis+cluster://h h",
        "redis+sentinel://h/secret",
        "redis+cluster:h",
    ],
)
def test_wrong_urls(url: str) -> None:
    """A wrong URL is refused; the message says what is wrong and quotes nothing that may be a password."""
    with pytest.raises(
        ConfigurationError, match=r"(URL of a store is wrong: .+\.|option ddb of a store is not known;) .+\."
    ) as raised:
        ClusterStore(url)

    assert "sec" not in str(raised.value)
    assert "ret" not in str(raised.value)


@pytest.mark.parametrize("option", [{"deadline": 0}, {"max_connections": 0}])
def test_options_out_of_range(option: dict[str, int]) -> None:
    """Options given as arguments are checked like those of the URL."""
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        ClusterStore("redis+cluster://h", **option)  # type: ignore[arg-type]  # that is the test
