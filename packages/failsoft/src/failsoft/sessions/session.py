"""One request's session: what it knows of the record, what it changed, and what the response owes for that.

States:

    UNLOADED   there is an id; nobody has asked the store yet
    UNCHECKED  loaded; whether its subject revoked it is not known yet, because no seal said who that is
    NEW        there is no id, or a dead one; nothing is stored
    LIVE       loaded
    MOVED      the id was renewed for another user a moment ago, and the browser will soon have the new one: there is nothing to
               read, and nothing can be written
    SNAPSHOT   the store is away; the sealed copy that the browser keeps stands in, for reading
    AWAY       the store is away: reading raises, or gives nothing, by the setting `session_on_outage`

Rules: no answer from the store is not "no session": it deletes no cookie and writes nothing. A dead id is not deleted from the browser
either, because the answer of a slow request would then delete the id that a quicker one has just set; a logout does delete it. What is
written is acknowledged when the store has it: what it did not take ends in a refusal in the response's place. Names are the stored
ones (see `record`); frameworks and users see a `SessionView`.
"""

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from failsoft.errors import (
    OperationFailed,
    Rejected,
    SessionConflict,
    SessionTooLarge,
    SessionUnavailable,
    SessionValueError,
    StoreUnavailable,
)
from failsoft.events import SessionGone, SessionRolledBack
from failsoft.exchange import SUBJECT, Answers, Exchange, Operation
from failsoft.problem import Problem
from failsoft.sessions.codec import decode, encode, is_immutable, is_unchanged
from failsoft.sessions.companion import Companion, Ticket
from failsoft.sessions.ids import SessionId
from failsoft.sessions.imported import Fetch
from failsoft.sessions.operations import MOVED, RENEWED, Check, Loaded
from failsoft.sessions.record import PRINCIPAL, Meta, Principal, meta_of, pack_principal, stored_name, unpack_principal

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions

__all__ = [
    "MAX_DEVICE",
    "MAX_SUBJECT",
    "MISSING",
    "NO_ANSWER",
    "SEAL_RENEWED",
    "SEAL_TRUSTED",
    "Ended",
    "Session",
    "State",
    "conflict",
    "device_of",
    "unavailable",
]

MAX_DEVICE = 200
"""Characters of a User-Agent that are kept."""

_log = logging.getLogger("failsoft.sessions")


class State(Enum):
    """See the module."""

    UNLOADED = "unloaded"
    UNCHECKED = "unchecked"
    NEW = "new"
    LIVE = "live"
    MOVED = "moved"
    SNAPSHOT = "snapshot"
    AWAY = "away"


_UNKNOWN = (State.UNLOADED, State.UNCHECKED)  # no set: to hash a member takes longer than to compare it with two
_EMPTY: Mapping[str, bytes] = {}

NO_ANSWER: Final = (OperationFailed, StoreUnavailable)

MAX_SUBJECT: Final = 255
"""Characters of a user's identifier. OpenID Connect Core, section 2, allows as many."""

SEAL_RENEWED: Final = 86_400.0
"""Seconds after which a seal is made anew, if its session is read."""

SEAL_TRUSTED: Final = 2 * SEAL_RENEWED
"""Seconds for which a seal says, without asking the store, whose limits a request uses up."""

MISSING: Final = object()
"""What `Session.find` gives where there is nothing."""


def unavailable(what: str) -> SessionUnavailable:
    """The refusal of a request that needs what the store has."""
    problem = Problem(type="about:blank", title="Service Unavailable", status=503, detail=what)
    return SessionUnavailable(problem, retry_after=1)


def device_of(agent: str | None) -> str:
    """What a subject's list says of the browser that a session is in: its User-Agent, as far as it can be shown."""
    return "".join(filter(str.isprintable, (agent or "")[:MAX_DEVICE]))


def conflict(what: str) -> SessionConflict:
    """The refusal of a request whose session ended meanwhile."""
    return SessionConflict(Problem(type="about:blank", title="Conflict", status=409, detail=what), retry_after=1)


class Ended(NamedTuple):
    """A session that was logged out of.

    Attributes:
        handle: its.
        digest: of the secret that was given, where the store has not said yet that it is the right one; otherwise "".
        subject: whose it was, as far as that is known.
    """

    handle: str
    digest: str
    subject: str | None


class Session:
    """One request's session.

    Args:
        service: the application's sessions.
        identity: what the cookie says, or None.
        companion: what the seal beside it says, or None.
        ticket: a logout that waits for the store, or None.
        exchange: the request, where there is one.
        foreign: where another package keeps the session, if the cookie is of that package.
        load: the operations that load it, if there is an id.

    Attributes:
        id: whoever has it is the user.
        state: see the module.
        accessed: whether anybody looked at it, so that the response varies with the cookie.
        modified: whether anything was set or deleted; what changed inside of a value is found when it is saved.
        persistent: whether the browser is to keep the cookie when it is closed.
        reissue: whether the next write gives the browser its cookie again, because `persistent` is another than before.
        reason: why there is no answer from the store, while there is none.
        device: what the subject's list of sessions says of this one: by default, at the login, the request's User-Agent.
        force: whether it is to be stored although nothing is in it.
        lost_from: the status from which on a response loses what was to be written; a logout counts all the same.
        next: the id that it has from the next write on, where somebody wanted to know it before; else None.
        refused: the refusal that was last raised to whoever used it; frameworks may make anything of it on its way out.
        unstored: the refusal of what could not be stored at the last attempt; whoever made that may put it right.
        above: the generation that it must be given a higher one than; 0: none.
        abandoned: where another package keeps the session that this request logged out of.
        ended: what this request logged out of.
        doomed: the id that was found to be revoked.
        ticket: a logout that waits for the store.
        replayed: whether that was made up for.
        rolled_back: whether the store has lost writes that this browser was told of.
    """

    __slots__ = (
        "_carried",
        "_companion",
        "_fields",
        "_idle",
        "_loads",
        "_login",
        "_meta",
        "_plain",
        "_principal",
        "_removed",
        "_renewed",
        "_rotate",
        "_set",
        "_size",
        "_values",
        "_watched",
        "abandoned",
        "above",
        "accessed",
        "device",
        "doomed",
        "ended",
        "exchange",
        "force",
        "foreign",
        "id",
        "lost_from",
        "modified",
        "next",
        "persistent",
        "reason",
        "refused",
        "reissue",
        "replayed",
        "rolled_back",
        "service",
        "state",
        "ticket",
        "unstored",
    )

    def __init__(
        self,
        service: "Sessions",
        identity: SessionId | None = None,
        companion: Companion | None = None,
        ticket: Ticket | None = None,
        exchange: Exchange | None = None,
        foreign: str | None = None,
        load: Sequence[Operation] = (),
    ) -> None:
        self.service = service
        self.foreign = foreign
        self.abandoned: str | None = None
        self._carried: tuple[str, Mapping[str, Any]] | None = None
        self._loads = load
        self.exchange = exchange
        self.id = identity
        self.state = State.NEW if identity is None and foreign is None else State.UNLOADED
        self.ticket = ticket
        self.accessed = self.modified = self.rolled_back = self.force = self.replayed = False
        self.persistent = True
        self.reissue = False
        self.lost_from = 1000  # no status is
        self.refused: Rejected | None = None
        self.unstored: Rejected | None = None
        self.reason: str | None = None
        self.device = ""
        self.ended: list[Ended] = []
        self.doomed: SessionId | None = None
        self.above = 0
        self._companion = companion
        self._forget()

    def _forget(self) -> None:
        self._fields: Mapping[str, bytes] = _EMPTY
        self._meta: Meta | None = None
        self._principal: Principal | None = None
        self._plain: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self._set: dict[str, bytes] = {}
        self._removed: set[str] = set()
        self._watched: set[str] = set()
        self._login: Principal | None = None
        self._rotate = self._renewed = False
        self.next: SessionId | None = None
        self._idle: int | None = None
        self._size = 0

    # Loading

    def loading(self) -> Generator[Sequence[Operation], Answers, None]:
        """Ask the store until the state is known; a driver carries what is yielded."""
        if self.state is State.UNLOADED:
            self.loaded((yield self.load_operations()))
        if self.state is State.UNCHECKED:
            self.checked((yield (self._check(),)))

    def load_operations(self) -> Sequence[Operation]:
        """What loads the session, and what replays a logout that had to wait."""
        load: Sequence[Operation] = ()
        if self.state is State.UNLOADED:
            load = self._loads if self.foreign is None else (Fetch(self.foreign),)
        if not self._replays:
            return load
        assert self.ticket is not None  # noqa: S101 - for the type checker
        return [
            *self.service.replay(self.ticket),
            *load,
        ]  # first, in case the browser still has the session's own cookie

    @property
    def _replays(self) -> bool:
        return self.ticket is not None and not self.replayed

    def loaded(self, answers: Answers) -> None:
        """Take the answers to `load_operations`."""
        if isinstance(answers, StoreUnavailable):
            if self.state is State.UNLOADED:
                self._away(answers.reason)
            return
        if self._replays and self.ticket is not None:
            count = len(self.service.replay(self.ticket))
            if not any(isinstance(one, NO_ANSWER) for one in answers[:count]):
                self.service.replayed(self)
            answers = answers[count:]
        if self.state is State.UNLOADED:
            self._take(answers)

    def _take(self, answers: Sequence[Any]) -> None:
        found = answers[0]
        if isinstance(found, NO_ANSWER):
            self._away(found.reason if isinstance(found, StoreUnavailable) else "failed")
            return
        if self.foreign is not None:
            self._carry_over(found)
            return
        if found is None:
            lost = self._companion is not None and self._companion.deadline > self.service.clock.time()
            self._gone("lost" if lost else "unknown")
            return
        self._load(found)
        if self.state is State.UNCHECKED and len(answers) > 1:
            companion, principal = self._companion, self._principal
            if companion is not None and principal is not None and companion.subject == principal.subject:
                self._verdict(answers[1])

    def _carry_over(self, data: bytes | None) -> None:
        """Make what another package has stored the content of a new session; it is written like everything else that was set."""
        importer = self.service.importer
        values = None if data is None or importer is None else importer.read(data)
        self.state = State.NEW
        if values is None or importer is None:
            self.foreign = None
            return
        subject = importer.subject(values)
        if subject is not None:
            self._carried, self.state = (subject, values), State.UNCHECKED
        else:
            self._put_in(values)

    def _put_in(self, values: Mapping[str, Any]) -> None:
        importer = self.service.importer
        assert importer is not None  # noqa: S101 - for the type checker: it has read them
        for key, value in values.items():
            own = key[:1] == "_" or key == "csrf_token"
            try:
                self.write(stored_name(key, importer.namespace if own else None), value, key)
            except (SessionValueError, SessionTooLarge) as error:
                _log.warning("left out of a session that was carried over: %s", error)

    def _load(self, found: Loaded) -> None:
        if found.code == MOVED:
            self.state = State.MOVED
            return
        self._fields = found.fields
        self._renewed = found.code == RENEWED
        self._size = -1  # counted when it matters
        idle = found.fields.get("@i")
        self._idle = None if idle is None else int(idle)
        if PRINCIPAL in found.fields:
            data = self._unsealed(PRINCIPAL)
            try:
                self._principal = None if data is None else unpack_principal(data)
            except ValueError:
                data = None
            if data is None:  # nobody can say who it belongs to, so nobody gets it
                _log.error(
                    "the principal of session %s cannot be read: is a secret missing in secret_fallbacks?", self.handle
                )
                self._gone("unknown")
                return
        self.state = State.LIVE if self._principal is None else State.UNCHECKED
        if self._companion is not None:
            version, hint = int(found.fields["@v"]), self._companion.version
            if version < hint:
                self.rolled_back = True
                self.service.publish(SessionRolledBack(self.handle, self._subject, version, hint))

    def _check(self) -> Check:
        if self._carried is not None:
            return Check(self.service.subject_key(self._carried[0]), "-")  # no session of ours
        assert self.id is not None  # noqa: S101 - for the type checker: the state says so
        assert self._principal is not None  # noqa: S101 - likewise
        return Check(self.service.subject_key(self._principal.subject), self.id.handle)

    def checked(self, answers: Answers) -> None:
        """Take the answer to the question whether the session was revoked."""
        self._verdict(answers if isinstance(answers, StoreUnavailable) else answers[0])

    def _verdict(self, answer: Any) -> None:
        if isinstance(answer, NO_ANSWER):
            self._away(answer.reason if isinstance(answer, StoreUnavailable) else "failed")
            return
        not_before, revoked = answer
        if self._carried is not None:
            (subject, values), self._carried = self._carried, None
            self.state = State.NEW
            if not_before:  # since then the user has revoked all that they had, and this is older
                self.abandoned, self.foreign = self.foreign, None
                return
            self._put_in(values)
            if self.service.importer is not None and self.service.importer.vouches:
                self.login(subject)
            return
        meta = self.meta_known
        if revoked or (meta is not None and meta.generation <= not_before):
            self.doomed = self.id
            self._gone("revoked")
        else:
            self.state = State.LIVE

    def _gone(self, reason: str) -> None:
        handle, subject = self.handle, self._subject
        if self.exchange is not None:
            self.exchange.memo.pop(SUBJECT, None)  # what comes later in this request is not on the subject's account
        self._forget()
        self.state = State.NEW
        self.id = None
        self.service.publish(SessionGone(handle, subject, reason))

    def _away(self, reason: str) -> None:
        self._forget()
        self.reason = reason
        snapshot = self.service.snapshot_of(self._companion)
        if snapshot is None:
            self.state = State.AWAY
        else:
            self.state = State.SNAPSHOT
            self._plain = dict(snapshot)
            data = snapshot.get(PRINCIPAL)
            self._principal = None if data is None else unpack_principal(data)
        self.service.degraded(self)

    def _ready(self) -> None:
        self.accessed = True
        if self.state is State.LIVE:
            return
        if self.state in _UNKNOWN:
            self.service.load(self)
        if self.state is State.AWAY and not self.service.empty_when_away and not self.ended:
            self.refused = unavailable("The session's store cannot be reached. The session is kept.")
            raise self.refused

    def _writable(self) -> None:
        self.accessed = True
        if self.state in _UNKNOWN:
            self.service.load(self)
        if self.state in (State.SNAPSHOT, State.AWAY):
            self.refused = unavailable(
                "The session can only be read for now, or not even that: its store cannot be reached. Nothing was written."
            )
            raise self.refused
        if self.state is State.MOVED:
            self.refused = conflict(
                "The session was renewed for another user a moment ago. Nothing was written; repeat the request."
            )
            raise self.refused
        self.modified = True

    # What others may know

    @property
    def handle(self) -> str | None:
        """Names the session, and opens nothing."""
        return None if self.id is None else self.id.handle

    @property
    def _subject(self) -> str | None:
        return None if self._principal is None else self._principal.subject

    @property
    def subject_hint(self) -> str | None:
        """Who the seal beside the cookie says is logged in: known without asking the store, and not whether it still holds.

        Only of a seal that is younger than `SEAL_TRUSTED`: whoever has kept one of a session that is dead could go on using up its
        user's limits.
        """
        seal = self._companion
        if seal is None or seal.subject is None:
            return None
        now = self.service.clock.time()
        return seal.subject if seal.deadline > now and now - seal.issued < SEAL_TRUSTED else None

    def load_subject(self) -> str | None:
        """Who is logged in, for those who count: no access. The store is asked, unless a seal says that it is nobody.

        Whoever leaves the seal out must be counted as the same user. While the store is away, nobody is known.
        """
        seal = self._companion
        if self.state in _UNKNOWN and (seal is None or seal.subject is not None):
            self.service.load(self)
        if self.state in _UNKNOWN:
            return None
        principal = self._login or self._principal
        return None if principal is None else principal.subject

    @property
    def principal(self) -> Principal | None:
        """Who is logged in."""
        self._ready()
        return self._login or self._principal

    @property
    def principal_known(self) -> Principal | None:
        """The same, as far as it is known without asking the store."""
        return self._principal

    @property
    def meta(self) -> Meta | None:
        """What the server wrote about it; None where nothing is stored or known."""
        self._ready()
        return self.meta_known

    @property
    def meta_known(self) -> Meta | None:
        """The same, as far as it is known without asking the store; to ask for it is no access."""
        if self._meta is None and self._fields:
            self._meta = meta_of(self._fields)
        return self._meta

    @property
    def degraded(self) -> bool:
        """Whether the store's answer is missing."""
        self._ready()
        return self.state in (State.SNAPSHOT, State.AWAY)

    @property
    def renewed(self) -> bool:
        """Whether another request gave it another id meanwhile, which the browser is about to get."""
        return self._renewed

    @property
    def companion(self) -> Companion | None:
        """What the seal beside the cookie said."""
        return self._companion

    def gave(self, companion: Companion) -> None:
        """The browser is given another seal."""
        self._companion = companion

    # Reading and writing

    def names(self) -> Iterator[str]:
        """What there is, by its stored names."""
        self._ready()
        known = [*self._fields] if self.state is not State.SNAPSHOT else [*self._plain]
        seen = set(known)
        yield from (name for name in known if name[:1] != "@" and name not in self._removed)
        yield from (name for name in list(self._set) if name not in seen and name[:1] != "@")

    def __contains__(self, name: str) -> bool:
        self._ready()
        return name in self._set or (name not in self._removed and (name in self._fields or name in self._plain))

    def read(self, name: str) -> Any:
        """The value stored as `name`. Raises KeyError, or `SessionUnavailable` while the store is away."""
        found = self.find(name)
        if found is MISSING:
            raise KeyError(name)
        return found

    def find(self, name: str) -> Any:
        """The same, but `MISSING` where there is none: most views ask for what is not there, and an error takes long."""
        self.accessed = True
        if self.state is not State.LIVE:
            self._ready()
        values = self._values
        if name in values:
            return values[name]
        data = None if name in self._removed else self._unsealed(name)
        if data is None:
            return MISSING
        try:
            value = decode(data)
        except ValueError:
            _log.error("the value %r of session %s is damaged; it counts as not there", name, self.handle)
            return MISSING
        values[name] = value
        if not is_immutable(value):
            self._watched.add(name)
        return value

    def peek(self, name: str) -> Any:
        """The value stored as `name`, as far as it is known without asking; None where it is not. The response does not vary with it."""
        if name in self._values:
            return self._values[name]
        data = None if name in self._removed else self._unsealed(name)
        try:
            return None if data is None else decode(data)
        except ValueError:
            return None

    def _unsealed(self, name: str) -> bytes | None:
        data = self._plain.get(name)
        if data is None and (stored := self._fields.get(name)) is not None:
            data = self.service.unseal(self.handle or "", name, stored)
            if data is None:
                _log.error(
                    "the value %r of session %s cannot be decrypted: is a secret missing in secret_fallbacks?",
                    name,
                    self.handle,
                )
            else:
                self._plain[name] = data
        return data

    def write(self, name: str, value: Any, key: str | None = None) -> None:
        """Store `value` as `name`. Raises what the module `codec` says, `SessionTooLarge`, or `SessionUnavailable` while the store is away.

        Args:
            name: the stored name.
            value: what the codec takes.
            key: what messages call it.
        """
        self._writable()
        self._put(name, encode(key or name, value))
        self._values[name] = value
        if not is_immutable(value):
            self._watched.add(name)

    def _put(self, name: str, data: bytes) -> None:
        most = self.service.most_bytes
        self._count()
        before = self._set.get(name)
        fresh = 0
        if before is None:
            before = b"" if name in self._removed else self._fields.get(name, b"")
            fresh = 0 if name in self._fields else len(name)
        size = self._size - len(before) + len(data) + fresh
        if size > most:
            raise SessionTooLarge(
                f"session[{name!r}] of {len(data)} bytes makes the session {size} bytes long; session_bytes is {most}. "
                "Keep large things elsewhere and put their names into the session"
            )
        self._size = size
        self._set[name] = data
        self._removed.discard(name)

    def _count(self) -> None:
        if self._size < 0:
            self._size = sum(map(len, self._fields.values())) + sum(map(len, self._fields))

    def remove(self, name: str) -> None:
        """Delete what is stored as `name`. Raises KeyError, or `SessionUnavailable` while the store is away."""
        if name not in self:
            raise KeyError(name)
        self._writable()
        if name in self._fields:
            self._removed.add(name)
        self._count()
        self._size -= len(self._set.pop(name, b"") or self._fields.get(name, b""))
        self._plain.pop(name, None)
        self._values.pop(name, None)
        self._watched.discard(name)

    def set_idle(self, seconds: float | None) -> None:
        """Let the session live unseen for so long, whatever the settings say; None: as they say."""
        self._writable()
        self._idle = None if seconds is None else max(1, int(seconds * 1000))
        name = "@i"
        if self._idle is None:
            self._set.pop(name, None)
            self._removed.add(name)
        else:
            self._removed.discard(name)
            self._set[name] = str(self._idle).encode()

    # Login and logout

    def login(self, subject: str, methods: Iterable[str] = ()) -> None:
        """Say who the user is from now on, and give the session another id (OWASP: against fixation).

        What an anonymous session holds stays. The session of another user is ended, and the new user gets one of their own.

        Args:
            subject: the user's identifier, as text; the same in every framework.
            methods: how they proved who they are.

        Raises:
            SessionUnavailable: the store is away.
            TypeError: the subject is no text, or the methods are one.
            ValueError: the subject is empty, or longer than 255 characters.
        """
        if not isinstance(subject, str) or isinstance(methods, str):
            raise TypeError(
                f"login({subject!r}, {methods!r}): the subject must be text, and the methods a sequence of texts"
            )
        if not 0 < len(subject) <= MAX_SUBJECT:
            raise ValueError(f"login(): a subject of {len(subject)} characters; accepted: 1 to {MAX_SUBJECT}")
        self._writable()
        before = self._login or self._principal
        if before is not None and before.subject != subject:
            self.logout()
        self._login = Principal(subject, self.service.clock.time(), tuple(methods))
        self._set[PRINCIPAL] = pack_principal(self._login)
        self._rotate = True
        if not self.device and self.exchange is not None:
            self.device = device_of(self.exchange.facts.header("user-agent"))

    def rotate(self) -> None:
        """Give the session another id: wherever privileges change. Raises `SessionUnavailable` while the store is away."""
        self._writable()
        if self._renewed:
            self.refused = conflict("Another request has renewed the session just now. Repeat the request.")
            raise self.refused
        self._rotate = True

    def logout(self) -> None:
        """End the session, for every framework and every browser tab. What is written afterwards begins a new one.

        While the store is away, the browser's cookies are deleted all the same, and a sealed ticket makes up for it later.
        """
        self.accessed = self.modified = True
        if self.state in _UNKNOWN:
            self.service.load(self)
        if self.state is State.MOVED:
            self._writable()  # raises: this id may not end what has become another user's
        if self.id is not None:  # otherwise there is nothing stored to end
            # Whose id has led to it may end it, however often others have renewed it since.
            digest = "" if self.state is State.LIVE else self.id.digest
            sealed = None if self._companion is None else self._companion.subject
            self.ended.append(Ended(self.id.handle, digest, self._subject or sealed))
        self.abandoned, self.foreign = self.foreign or self.abandoned, None
        self._forget()
        if self.state in (State.LIVE, State.NEW):
            self.state = State.NEW
            self.id = None

    def expire(self) -> None:
        """The session is over for whoever reads it here: by a moment that the application has set."""
        self._gone("expired")

    def coming_id(self) -> SessionId | None:
        """The id that the next write gives the session, made now; or the one that it has, if no write gives it another."""
        if self.next is None:
            if self.state is State.NEW:
                self.next = SessionId.new(self.service.random)
            elif self._rotate and self.id is not None:
                self.next = self.id.rotated(self.service.random)
        return self.next or self.id

    # Saving

    def lose(self) -> None:
        """Forget what was to be written, but for a logout: the response says that the request failed."""
        for name in (*self._set, *self._watched):
            self._values.pop(name, None)
        self._set, self._removed, self._login = {}, set(), None
        self._watched.clear()
        self._rotate = self.force = False
        self.next = None
        self._size = -1

    def discard(self) -> None:
        """Forget what was to be written: the request failed without a response, so nobody would be told of a new id."""
        self.ended = []
        self._forget()
        self.state = State.AWAY if self.id is not None else State.NEW

    def changes(self) -> tuple[dict[str, bytes], list[str]]:
        """What has to be set and deleted, by its stored names. Raises what `write` raises, for values that changed inside."""
        for name in self._watched:
            value, before = self._values[name], self._set.get(name) or self._plain.get(name, b"")
            if not is_unchanged(value, before) and (data := encode(name, value)) != before:
                self._put(name, data)
        return self._set, sorted(self._removed) if self._removed else []

    def changed_inside(self) -> bool:
        """Whether a value that was read is not any more what it was."""
        try:
            return any(encode(name, self._values[name]) != self._plain.get(name) for name in self._watched)
        except SessionValueError:
            return True

    @property
    def login_pending(self) -> Principal | None:
        """Who is to be the user from the next write on."""
        return self._login

    @property
    def rotation_pending(self) -> bool:
        """Whether the next write gives the session another id."""
        return self._rotate

    def saved(self, identity: SessionId, meta: Meta, written: Mapping[str, bytes], removed: Iterable[str]) -> None:
        """What was to be written is: `written` and `removed`. What another task of the request changed meanwhile still is to be."""
        if self.ended:  # another task has logged out meanwhile
            return
        self.id = identity
        gone = frozenset(removed)
        self._plain.update(written)
        # Sealed values are kept as the server has them; here only their names matter, since `_plain` is looked at first.
        fields = {**self._fields, **written}
        for name in gone:
            fields.pop(name, None)
        self._fields = fields
        if self._login is not None:
            self._principal = self._login
        self._meta = meta if self._idle is None else meta._replace(idle=self._idle)
        self._removed = (self._removed - gone).union(written.keys() - self._set.keys())
        self._set = {name: data for name, data in self._set.items() if written.get(name) is not data}
        self._login = None
        self._rotate = self.force = False
        self.next = None
        self.above = 0
        self.state = State.LIVE
        self.modified = bool(self._set or self._removed)

    def snapshot_values(self, names: Iterable[str]) -> dict[str, bytes]:
        """The encoded values of `names`, as far as there are any, and the principal."""
        found = {
            name: data for name in names if name not in self._removed and (data := self._unsealed(name)) is not None
        }
        if (principal := self._unsealed(PRINCIPAL)) is not None:
            found[PRINCIPAL] = principal
        return found

    def unsaved(self, error: Exception) -> Rejected:
        """The refusal of a request that put into the session what cannot be stored, found when it was to be stored."""
        _log.error("the session was not saved: %s", error)
        return Rejected(
            Problem(
                type="about:blank", title="Internal Server Error", status=500, detail="The session could not be saved."
            )
        )

    def __repr__(self) -> str:
        return f"Session({self.handle!r}, {self.state.value})"
