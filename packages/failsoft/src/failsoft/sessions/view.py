"""What frameworks and their users see of a session: a mapping."""

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, ClassVar, Final

from failsoft.sessions.content import MISSING
from failsoft.sessions.record import Principal, key_of, stored_name
from failsoft.sessions.session import Session

__all__ = ["SessionView"]


_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 64
"""Names that are remembered, and the characters of their keys: an application has few, but some take them from users."""


def _plain(key: Any) -> str:
    if not isinstance(key, str):  # also what equals a text, as Django's lazy translations do
        raise TypeError(f"the key {key!r} of a session is of type {type(key).__name__}; keys are text")
    return str.__str__(key)  # an enumeration's own method may give the member's name


class SessionView(MutableMapping[str, Any]):
    """A session, as one framework sees it: what all share, and what that framework keeps for itself.

    A key that begins with an underscore is the framework's own, as are those in `private`: other frameworks neither see nor clear it.
    What is set or deleted is written at the end of the request, key by key, beside what other requests write at the same time; changes
    inside of a value are noticed.

    Args:
        session: the request's.
        namespace: the framework's, in lower-case letters.
    """

    private: ClassVar[frozenset[str]] = frozenset()
    """Keys that are the framework's own although they begin with no underscore."""

    _known: ClassVar[dict[tuple[str, str], str]] = {}
    """Stored names by key and namespace; each class has its own, since its `private` keys are."""

    __slots__ = ("namespace", "session")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._known = {}

    def __init__(self, session: Session, namespace: str) -> None:
        self.session = session
        self.namespace = namespace

    def name_of(self, key: str) -> str:
        """What `key` is stored as. Raises TypeError for a key that is no text."""
        if type(key) is not str:
            key = _plain(key)
        try:
            return self._known[key, self.namespace]
        except KeyError:
            return self._named(key)

    def _named(self, key: str) -> str:
        name = stored_name(key, self.namespace if key[:1] == "_" or key in self.private else None)
        if len(key) <= _LONGEST_KNOWN:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key, self.namespace] = name
        return name

    def _find(self, key: str) -> Any:
        """The value of `key`, or `MISSING`: where a framework's class has more to say."""
        return self.session.find(self.name_of(key))

    def __getitem__(self, key: str) -> Any:
        found = self._find(key)
        if found is MISSING:
            raise KeyError(key)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default`. The base's would raise an error first, and most views ask for what is not there."""
        found = self._find(key)
        return default if found is MISSING else found

    def __setitem__(self, key: str, value: Any) -> None:
        self.session.write(self.name_of(key), value, key)

    def __delitem__(self, key: str) -> None:
        try:
            self.session.remove(self.name_of(key))
        except KeyError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.name_of(key) in self.session

    def __iter__(self) -> Iterator[str]:
        namespace = self.namespace
        return iter([key for name in self.session.names() if (key := key_of(name, namespace)) is not None])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def popitem(self) -> tuple[str, Any]:
        """Take the last item, as from a dict; the base's takes the first. Raises KeyError where there is none."""
        for key in reversed(list(self)):
            return key, self.pop(key)
        raise KeyError("popitem(): the session is empty")

    def clear(self) -> None:
        """Remove what this framework sees; what others keep for themselves stays. To end the session is `logout`."""
        for key in list(self):
            del self[key]

    # Beside the mapping

    @property
    def principal(self) -> Principal | None:
        """Who is logged in, in words that every framework understands; None for nobody."""
        return self.session.principal

    @property
    def degraded(self) -> bool:
        """Whether the store is away, so that this is a snapshot or nothing, and cannot be written."""
        return self.session.degraded

    @property
    def modified(self) -> bool:
        """Whether a key was set or deleted in this request."""
        return self.session.modified

    @modified.setter
    def modified(self, value: bool) -> None:
        # What changed is found by itself; the flag is there for those who are used to setting it.
        self.session.modified = value

    @property
    def accessed(self) -> bool:
        """Whether anybody looked at the session in this request."""
        return self.session.accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        self.session.accessed = value

    def login(self, subject: str, methods: Iterable[str] = ()) -> None:
        """Say who the user is, and give the session another id. See `Session.login`."""
        self.session.login(subject, methods)

    def rotate(self, *, strict: bool = False) -> None:
        """Give the session another id. See `Session.rotate`."""
        self.session.rotate(strict=strict)

    def logout(self) -> None:
        """End the session, for every framework. See `Session.logout`."""
        self.session.logout()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.session!r}>"
