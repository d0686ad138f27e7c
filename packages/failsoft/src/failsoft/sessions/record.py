"""What a record's fields mean: names, the principal, and what the server wrote about the session.

Names. What the application calls ``cart`` is stored as ``cart``, so that other programs find it. What a framework keeps for itself
(``_flashes``, ``_auth_user_id``) is stored as ``flask:_flashes``, and only that framework sees it. Names that begin with ``@`` are ours. A
key of the application's that would be taken for one of those is stored behind a ``=``.
"""

from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

from failsoft.sessions.codec import decode, encode

__all__ = ["PRINCIPAL", "Meta", "Principal", "key_of", "meta_of", "pack_principal", "stored_name", "unpack_principal"]

PRINCIPAL = "@p"

_NUMBERS = itemgetter("@c", "@a", "@t", "@v", "@g")  # in the order of `Meta`


class Principal(NamedTuple):
    """Who is logged in, in words that belong to no framework.

    Attributes:
        subject: the user's identifier, as text.
        auth_time: when they logged in, in seconds since the epoch.
        methods: how they proved who they are (RFC 8176: ``"pwd"``, ``"otp"``...).
    """

    subject: str
    auth_time: float
    methods: tuple[str, ...] = ()


class Meta(NamedTuple):
    """What the server wrote about a session; times are milliseconds since the epoch.

    Attributes:
        created: when it began.
        deadline: when it ends at the latest.
        seen: when it was last seen; up to the setting `session_touch` later.
        version: how often it was written.
        generation: when its user was set, in microseconds.
        idle: how long it lives unseen, or None for what the settings say.
    """

    created: int
    deadline: int
    seen: int
    version: int
    generation: int
    idle: int | None


def meta_of(fields: Mapping[str, bytes]) -> Meta:
    """What the fields of a record say about it."""
    idle = fields.get("@i")
    created, deadline, seen, version, generation = map(int, _NUMBERS(fields))
    return Meta(created, deadline, seen, version, generation, None if idle is None else int(idle))


def stored_name(key: str, namespace: str | None) -> str:
    """What `key` is stored as: a framework's own in its `namespace`, everybody's without one.

    Raises ValueError for what is no Unicode text.
    """
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the key {key!r} of a session is no Unicode text") from None
    if namespace is not None:
        return f"{namespace}:{key}"
    return f"={key}" if key[:1] in ("@", "=") or ":" in key else key


def key_of(name: str, namespace: str) -> str | None:
    """What the framework of `namespace` calls what is stored as `name`; None if that is not for it."""
    first = name[:1]
    if first == "@":
        return None
    if first == "=":
        return name[1:]
    owner, colon, key = name.partition(":")
    if not colon:
        return name
    return key if owner == namespace else None


def pack_principal(principal: Principal) -> bytes:
    """The principal as it is stored."""
    return encode(PRINCIPAL, [principal.subject, principal.auth_time, list(principal.methods)])


def unpack_principal(data: bytes) -> Principal:
    """The principal that was stored. Raises ValueError where it is none."""
    found = decode(data)
    if not (isinstance(found, list) and len(found) == 3 and isinstance(found[0], str)):
        raise ValueError("the stored principal is damaged")
    try:
        return Principal(found[0], float(found[1]), tuple(map(str, found[2])))
    except (TypeError, OverflowError):
        raise ValueError("the stored principal is damaged") from None
