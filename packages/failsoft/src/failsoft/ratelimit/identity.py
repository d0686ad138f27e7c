"""Whom a limit counts: the `by` of a limit, made into the last part of its keys.

Rules:

- Every identity says what kind it is (``ip:192.0.2.1``, ``user:42``), so that no value of one kind is taken for another.
- What a client can choose is escaped, cut to a digest when long, and never joined without a separator.
- A missing identity is not an identity: `of` returns None, and the limit's `on_missing` decides. There is no bucket for "unknown".
  An empty string is missing too, and so is a tuple or a combination that lacks a part.
- API keys and other header values are secrets: only their digests leave the process.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any, Protocol
from urllib.parse import quote

from failsoft.errors import ConfigurationError
from failsoft.exchange import SUBJECT, Exchange, NotYet, Question
from failsoft.exchange.places import line_of
from failsoft.exchange.policy import is_asynchronous
from failsoft.exchange.signatures import name_of, unfit
from failsoft.settings.counting import is_identity, meant_identity

__all__ = [
    "IP",
    "By",
    "Hashed",
    "Identity",
    "Late",
    "NoAddress",
    "asked",
    "compile_identity",
    "digest",
    "escape",
    "hashed",
    "late",
]

_log = logging.getLogger("failsoft.ratelimit")

_PLAIN = re.compile(r"[A-Za-z0-9_.@-]{1,64}").fullmatch
_OBJECT = re.compile(r"<.* object .*at 0x[0-9A-Fa-f]+>", re.DOTALL).fullmatch
"""What `object` calls itself, and what stands for a coroutine or a generator."""


class Identity(Protocol):
    """Whom a limit counts."""

    question: Question | None
    """What must be asked of the user's code first."""

    needs_user: bool
    """Whether it asks the framework who the user is."""

    def of(self, exchange: Exchange) -> str | NotYet | None:
        """The part of the key; None where it is missing, `NOT_YET` where it is known only later in the request."""
        ...


class Late:
    """An identity that is known only when the view is about to run. Made by `late`."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def late(function: Callable[..., str | None] | Callable[..., Awaitable[str | None]]) -> Any:
    """Count by something that only the view's arguments tell, for example a user that a dependency has looked up.

    Costs a second trip to the store, just before the view's body.

    Args:
        function: called with exactly the arguments of the view; may be async. Returns the identity, or None where it is missing.
    """
    return Late(function)


class Hashed:
    """An identity that nobody is to read. Made by `hashed`."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, request: Any) -> Any:
        """What the function says, for those who ask it themselves. The setting `by` takes what can be called."""
        return self.function(request)

    def __repr__(self) -> str:
        return f"hashed({self.function!r})"


def hashed(function: Callable[..., str | None] | Callable[..., Awaitable[str | None]]) -> Any:
    """Count by what a function of the request returns, of which only a digest leaves the process.

    For what is personal or a secret: a name that somebody typed in, a key in a cookie. The digest is keyed with the setting
    `secret`; without one, whoever reads the store can tell which of the values that they know are there.

    Args:
        function: called with the request; may be async. Returns the identity, or None where it is missing.
    """
    if not callable(function):
        raise ConfigurationError(f"hashed({function!r}): must be a function of the request")
    return Hashed(function)


By = str | Callable[..., Any] | Late | Hashed | Sequence[Any]
"""``"ip"``, ``"user"``, ``"route"``, ``"header:NAME"``, a function of the request, ``late(function)``, ``hashed(function)``, or a
sequence of these."""


def digest(value: str, secret: bytes = b"") -> str:
    """A short name for a value that must not be shown: keyed BLAKE2b (RFC 7693), 128 bits, in hexadecimal."""
    return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16, key=secret[:64]).hexdigest()


def escape(value: str) -> str:
    """`value` in characters that have no meaning in a key; no two values give the same."""
    if _PLAIN(value):
        return value
    if len(value) > 64:
        return "~" + digest(value)
    # `quote` leaves the tilde alone, and with it a client could write somebody else's digest.
    return quote(value, safe="", errors="surrogatepass").replace("~", "%7E")


class _Ip:
    question: Question | None = None
    needs_user = False

    def of(self, exchange: Exchange) -> str | None:
        client = exchange.client
        if client == "":
            facts = exchange.facts
            # Every line of a forwarding header counts, hence the method, not its first value.
            address = exchange.engine.addresses.resolve(facts.peer(), facts.header_lines)
            client = exchange.client = None if address is None else "ip:" + address
        return client


IP: Identity = _Ip()


class NoAddress:
    """Says in the log, once, why a request has no address and what to do about it. The client is not told: it can do nothing."""

    __slots__ = ("_unsaid",)

    def __init__(self) -> None:
        self._unsaid = Lock()  # taken by whoever says it, and not given back; nobody waits for it

    def tell(self, exchange: Exchange, header: str) -> None:
        """Say it of this request; `header` is what trusted proxies write."""
        if not self._unsaid.acquire(blocking=False):
            return
        peer = exchange.facts.peer()
        if exchange.engine.addresses.trusts(peer):
            cause = f"the proxy at the Unix socket wrote no address into {header}"
            cure = "let it write that header, or set forwarded_header to the one that it writes"
        else:
            named = "names no peer" if not peer else f"calls the peer {peer[:64]!r}, which is no address"
            cause = f"the server {named}, as over a Unix socket"
            cure = "if your proxy is at its other end, add 'unix' to trusted_proxies"
        _log.warning("a request was refused with 403, since no address is known to count it by: %s; %s", cause, cure)


class _User:
    question: Question | None = None
    needs_user = True

    def of(self, exchange: Exchange) -> str | NotYet | None:
        user = exchange.memo.get(SUBJECT) or exchange.facts.user()
        if not isinstance(user, str):
            return user
        return "user:" + escape(user) if user else None


class _Route:
    question: Question | None = None
    needs_user = False

    def of(self, exchange: Exchange) -> str | None:
        return "route:" + escape(exchange.plan.route.template or "")


class _Header:
    question: Question | None = None
    needs_user = False

    def __init__(self, name: str, secret: bytes) -> None:
        self.name = name.lower()
        self.secret = secret

    def of(self, exchange: Exchange) -> str | None:
        value = exchange.facts.header(self.name)
        return None if not value else f"header:{self.name}:{digest(value, self.secret)}"


class _Asked:
    needs_user = False

    def __init__(self, question: Question) -> None:
        self.question: Question | None = question

    def of(self, exchange: Exchange) -> str | None:
        value = exchange.answers[self.question]  # type: ignore[index]  # set in __init__
        if not isinstance(value, tuple | list):
            return None if value is None or value == "" else "key:" + escape(self._text(value))
        if not value or None in value or "" in value:
            return None  # all who lack a part would share a bucket
        return "key:" + ":".join([escape(self._text(part)) for part in value])

    def _text(self, value: object) -> str:
        if isinstance(value, str):
            return str(value)
        text = str(value)
        if _OBJECT(text):
            raise ConfigurationError(
                f"{_shown('by', self.question.function)} returned {text}: by its place in memory nobody is known again, so the limit "  # type: ignore[union-attr]  # set in __init__
                "would hold for nobody; return what names it, such as its id"
            )
        return text


class _Hashed:
    needs_user = False

    def __init__(self, question: Question, secret: bytes) -> None:
        self.question: Question | None = question
        self.secret = secret

    def of(self, exchange: Exchange) -> str | None:
        value = exchange.answers[self.question]  # type: ignore[index]  # set in __init__
        return None if value is None or value == "" else "hash:" + digest(str(value), self.secret)


class _Joined:
    def __init__(self, parts: Sequence[Identity], question: Question | None) -> None:
        self.parts = parts
        self.question = question
        self.needs_user = any(part.needs_user for part in parts)

    def of(self, exchange: Exchange) -> str | NotYet | None:
        found: list[str] = []
        for part in self.parts:
            value = part.of(exchange)
            if not isinstance(value, str):
                return value
            found.append(value)
        return "+".join(found)


def asked(function: Callable[..., Any], key: str) -> Question:
    """What `function`, which `key` gives, is asked of each request.

    Raises:
        ConfigurationError: it cannot be called with the request alone: every request would fail.
    """
    parameters = unfit(function, 1)
    if parameters is not None:
        raise ConfigurationError(
            f"{_shown(key, function)} is called with the request alone, and its parameters are {parameters}: give it one, for the request"
        )
    return Question(function, asynchronous=is_asynchronous(function))


def _shown(key: str, function: Callable[..., Any]) -> str:
    return f"{key}={name_of(function)} ({line_of(function)})"


def compile_identity(by: By, *, secret: bytes = b"", question: Question | None = None) -> Identity:
    """The identity that `by` stands for.

    Args:
        by: what was declared.
        secret: keys the digests in it.
        question: the one that it asks, if that was made already.

    Raises:
        ConfigurationError: it stands for none.
    """
    if isinstance(by, str):
        if by == "ip":
            return IP
        if by == "user":
            return _User()
        if by == "route":
            return _Route()
        if is_identity(by):
            return _Header(by.partition(":")[2], secret)
    elif isinstance(by, Late):
        return _Asked(question or Question(by.function, asynchronous=is_asynchronous(by.function), late=True))
    elif isinstance(by, Hashed):
        return _Hashed(question or asked(by.function, "by"), secret)
    elif callable(by):
        return _Asked(question or asked(by, "by"))
    elif isinstance(by, Sequence) and by:
        parts = [compile_identity(part, secret=secret, question=question) for part in by]
        questions = [part.question for part in parts if part.question is not None]
        if len(questions) > 1:
            raise ConfigurationError(f"by={by!r}: at most one function; let one function return a tuple")
        return _Joined(parts, questions[0] if questions else None)
    near = f"{meant} It " if isinstance(by, str) and (meant := meant_identity(by)) else ""
    raise ConfigurationError(
        f"by={by!r}: {near}must be 'ip', 'user', 'route', 'header:NAME', a function of the request, late(function), "
        "hashed(function), or a sequence of these"
    )
