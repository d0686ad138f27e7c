"""One request's session: who uses it, what they read and change, and what the response owes for that.

What may be known of a session is in the module `state`, how that comes about in `loading`, what it holds in `content`, and how it is
written in `saving`. Rules: what is written is acknowledged when the store has it, and what the store did not take ends in a refusal in the
response's place. Names are the stored ones (see `record`); frameworks and users see a `SessionView`.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from failsoft.errors import Rejected
from failsoft.exchange import Exchange, Operation
from failsoft.sessions.companion import SEAL_TRUSTED, Companion, Ended, Remembered, Ticket
from failsoft.sessions.content import IDLE, KEPT, MISSING, Content
from failsoft.sessions.ids import SessionId
from failsoft.sessions.loading import gone
from failsoft.sessions.record import PRINCIPAL, Meta, Principal, meta_of, pack_principal
from failsoft.sessions.state import LIVE, NEW, UNKNOWN, UNLOADED, State, conflict, unavailable

if TYPE_CHECKING:
    from failsoft.sessions.service import Sessions

__all__ = ["MAX_DEVICE", "MAX_SUBJECT", "Session", "device_of"]

MAX_DEVICE: Final = 200
"""Characters of a User-Agent that are kept."""

MAX_SUBJECT: Final = 255
"""Characters of a user's identifier. OpenID Connect Core, section 2, allows as many."""


def device_of(agent: str | None) -> str:
    """What a subject's list says of the browser that a session is in: its User-Agent, as far as it can be shown."""
    return "".join(filter(str.isprintable, (agent or "")[:MAX_DEVICE]))


def _unless_said(session: "Session") -> bool:
    return session.kept is not False


class Session:
    """One request's session.

    Args:
        service: the application's sessions.
        identity: what the cookie says, or None.
        companion: what the seal beside it says, or None.
        ticket: a logout that waits for the store, or None.
        foreign: where another package keeps the session, if the cookie is of that package.
        loads: the operations that load it, if there is an id.

    Attributes:
        id: whoever has it is the user.
        life: another number after each logout, so that the answer to an earlier write is known as such.
        state: what is known of it.
        content: what it holds; the service's `nothing` until it is loaded or written.
        version: how often it has been written, as the store last said.
        renewed: whether another request gave it another id meanwhile, which the browser is about to get.
        noted: what the server wrote about it, if anybody asked; `meta_known` does.
        principal_known: who is logged in, as far as it is known without asking the store.
        login_pending: who is to be the user from the next write on.
        rotation_pending: whether the next write gives the session another id.
        strict: whether the id before that opens nothing from then on.
        companion: what the seal beside the cookie says.
        accessed: whether anybody looked at it, so that the response varies with the cookie.
        modified: whether anything was set or deleted; what changed inside of a value is found when it is saved.
        exchange: the request, where there is one.
        persists: whether the browser is to keep the cookie when it is closed; adapters ask `kept`, and have a default of their own.
        reissue: whether the next write gives the browser its cookie again, because it is to keep it for another time than before.
        reason: why there is no answer from the store, while there is none.
        device: what the subject's list of sessions says of this one: by default, at the login, the request's User-Agent.
        force: whether it is to be stored although nothing is in it.
        lost_from: the status from which on a response loses what was to be written; a logout counts all the same.
        next: the id that it has from the next write on, where somebody wanted to know it before; else None.
        refused: the refusal that was last raised to whoever used it; frameworks may make anything of it on its way out.
        unstored: the refusal of what could not be stored at the last attempt; whoever made that may put it right.
        above: the generation that it must be given a higher one than; 0: none.
        abandoned: where another package keeps the session that this request logged out of.
        carried: whose session that was, and its values, until it is known whether they have revoked it.
        ended: what this request logged out of.
        doomed: the id that was found to be revoked.
        doubtful: the id of a new session of which nobody knows whether the store has it.
        ticket: a logout that waits for the store.
        replayed: whether that was made up for.
        remembered: what the seals of remember cookies say, as far as they are ours; None where there are none, and after a logout.
        ticketed: what this request logged out of, and a ticket is to make up for.
        rolled_back: whether the store has lost writes that this browser was told of.
    """

    # What hardly any request sets has its usual value here. What most set or look at must not: to set an attribute costs 70 instructions,
    # to set one that the class has too 430, and to find it in the class 300 once any session has one of its own.
    reissue = replayed = rolled_back = False
    life = 0
    reason: str | None = None
    device = ""
    refused: Rejected | None = None
    unstored: Rejected | None = None
    abandoned: str | None = None
    carried: tuple[str, Mapping[str, Any]] | None = None
    doomed: SessionId | None = None
    doubtful: SessionId | None = None
    remembered: Sequence[Remembered] | None = None
    ticketed: Sequence[Ended] = ()

    def __init__(
        self,
        service: "Sessions",
        identity: SessionId | None = None,
        companion: Companion | None = None,
        ticket: Ticket | None = None,
        foreign: str | None = None,
        loads: Sequence[Operation] = (),
    ) -> None:
        self.service = service
        self.id = identity
        self.companion = companion
        self.ticket = ticket
        self.foreign = foreign
        self.loads = loads
        self.state = NEW if identity is None and foreign is None else UNLOADED
        self.content = service.nothing
        self.exchange: Exchange | None = None
        self.persists: Callable[[Session], bool] = _unless_said
        self.principal_known: Principal | None = None
        self.login_pending: Principal | None = None
        self.next: SessionId | None = None
        self.ended: Sequence[Ended] = ()
        self.version = self.above = 0
        self.lost_from = 1000  # no status is
        self.accessed = self.modified = self.renewed = self.rotation_pending = self.force = self.strict = False
        self.noted: Meta | None = None

    def forget(self) -> None:
        """Have nothing, and owe nothing but logouts."""
        self.life += 1
        self.content = self.service.nothing
        self.noted = self.principal_known = self.login_pending = self.next = None
        self.rotation_pending = self.renewed = self.strict = self.force = False

    def _ready(self) -> None:
        self.accessed = True
        if self.state is LIVE:
            return
        if self.state in UNKNOWN:
            self.service.load(self)
        if self.state is State.AWAY and not self.service.empty_when_away and not self.ended:
            self.refused = unavailable("The session's store cannot be reached. The session is kept.")
            raise self.refused

    def _writable(self) -> None:
        self.accessed = True
        if self.state in UNKNOWN:
            self.service.load(self)
        if self.state is not LIVE and self.state is not NEW:
            self.refused = (
                conflict("The session was renewed a moment ago. Nothing was written; repeat the request.")
                if self.state is State.MOVED
                else unavailable(
                    "The session can only be read for now, or not even that: its store cannot be reached. Nothing was written."
                )
            )
            raise self.refused
        self.modified = True
        if self.content is self.service.nothing:
            self.content = Content(self.service)

    # What others may know

    @property
    def handle(self) -> str | None:
        """Names the session, and opens nothing."""
        return None if self.id is None else self.id.handle

    @property
    def subject_known(self) -> str | None:
        """Who is logged in, as far as it is known without asking the store."""
        return None if self.principal_known is None else self.principal_known.subject

    @property
    def subject_hint(self) -> str | None:
        """Who the seal beside the cookie says is logged in: known without asking the store, and not whether it still holds.

        Only of a seal that is younger than `SEAL_TRUSTED`: whoever has kept one of a session that is dead could go on using up its
        user's limits.
        """
        seal = self.companion
        if seal is None or seal.subject is None:
            return None
        now = self.service.clock.time()
        return seal.subject if seal.deadline > now and now - seal.issued < SEAL_TRUSTED else None

    def load_subject(self) -> str | None:
        """Who is logged in, for those who count: no access. The store is asked, unless a seal says that it is nobody.

        Whoever leaves the seal out must be counted as the same user. While the store is away, nobody is known.
        """
        seal = self.companion
        if self.state in UNKNOWN and (seal is None or seal.subject is not None):
            self.service.load(self)
        if self.state in UNKNOWN:
            return None
        principal = self.login_pending or self.principal_known
        return None if principal is None else principal.subject

    @property
    def principal(self) -> Principal | None:
        """Who is logged in."""
        self._ready()
        return self.login_pending or self.principal_known

    @property
    def meta(self) -> Meta | None:
        """What the server wrote about it; None where nothing is stored or known."""
        self._ready()
        return self.meta_known

    @property
    def meta_known(self) -> Meta | None:
        """The same, as far as it is known without asking the store; to ask for it is no access."""
        if self.noted is None and "@v" in self.content.fields:
            self.noted = meta_of(self.content.fields)
        return self.noted

    @property
    def created(self) -> int:
        """When the live session began, in milliseconds since the epoch: alone, where nobody has read what else `meta_known` tells."""
        return int(self.content.fields["@c"]) if self.noted is None else self.noted.created

    @property
    def degraded(self) -> bool:
        """Whether the store's answer is missing."""
        self._ready()
        return self.state in (State.SNAPSHOT, State.AWAY)

    # Reading and writing

    def names(self) -> Iterator[str]:
        """What there is, by its stored names."""
        self._ready()
        return self.content.names()

    def __contains__(self, name: str) -> bool:
        self._ready()
        return name in self.content

    def read(self, name: str) -> Any:
        """The value stored as `name`. Raises KeyError, or `SessionUnavailable` while the store is away."""
        found = self.find(name)
        if found is MISSING:
            raise KeyError(name)
        return found

    def find(self, name: str) -> Any:
        """The same, but `MISSING` where there is none: most views ask for what is not there, and an error takes long."""
        self.accessed = True
        if self.state is not LIVE:
            self._ready()
        return self.content.find(name)

    def peek(self, name: str) -> Any:
        """The value stored as `name`, as far as it is known without asking; None where it is not. The response does not vary with it."""
        return self.content.peek(name)

    def write(self, name: str, value: Any, key: str | None = None) -> None:
        """Store `value` as `name`. Raises what the module `codec` says, `SessionTooLarge`, or `SessionUnavailable` while the store is away.

        Args:
            name: the stored name.
            value: what the codec takes.
            key: what messages call it.
        """
        self._writable()
        self.content.put(name, value, key)

    def remove(self, name: str) -> None:
        """Delete what is stored as `name`. Raises KeyError, or `SessionUnavailable` while the store is away."""
        if name not in self:
            raise KeyError(name)
        self._writable()
        self.content.remove(name)

    def set_idle(self, seconds: float | None) -> None:
        """Let the session live unseen for so long, whatever the settings say; None: as they say."""
        self._writable()
        if seconds is None:
            self.content.remove_own(IDLE)
        else:
            self.content.put_own(IDLE, str(max(1, int(seconds * 1000))).encode())

    def keep(self, wish: bool | None) -> None:
        """Let the browser keep the cookie when it is closed, or not, whichever framework writes it next; None: as that one has it."""
        self._writable()
        if wish is None:
            self.content.remove_own(KEPT)
        else:
            self.content.put_own(KEPT, b"1" if wish else b"0")
        self.reissue = True

    @property
    def kept(self) -> bool | None:
        """What `keep` was told, as far as it is stored and known without asking; None for nothing."""
        found = self.content.encoded(KEPT)
        return None if found is None else found == b"1"

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
        before = self.login_pending or self.principal_known
        if before is not None and before.subject != subject:
            self.logout()
            self._writable()
        self.login_pending = Principal(subject, self.service.clock.time(), tuple(methods))
        self.content.put_own(PRINCIPAL, pack_principal(self.login_pending))
        self.rotation_pending = True
        if not self.device and self.exchange is not None:
            self.device = device_of(self.exchange.facts.header("user-agent"))

    def rotate(self, *, strict: bool = False) -> None:
        """Give the session another id: wherever privileges change. A login does that by itself, strictly.

        Args:
            strict: whether the id before opens nothing from then on, as if the user were another one: whoever has a copy of it is out.
                If the response with the new id is lost, so is the browser. Otherwise the former id goes on until a short grace after
                the first use of the new one.

        Raises:
            SessionUnavailable: the store is away.
        """
        self._writable()
        if self.renewed:
            self.refused = conflict("Another request has renewed the session just now. Repeat the request.")
            raise self.refused
        self.rotation_pending = True
        self.strict = self.strict or strict

    def logout(self) -> None:
        """End the session, for every framework and every browser tab. What is written afterwards begins a new one.

        While the store is away, the browser's cookies are deleted all the same, and a sealed ticket makes up for it later.
        """
        self.accessed = self.modified = True
        if self.state in UNKNOWN:
            self.service.load(self)
        if self.state is State.MOVED:
            self._writable()  # raises: this id may not end what has become another user's
        self.unremember()
        if self.id is not None:  # otherwise there is nothing stored to end
            # Whose id has led to it may end it, however often others have renewed it since.
            digest = "" if self.state is LIVE else self.id.digest
            sealed = None if self.companion is None else self.companion.subject
            self.ended = [*self.ended, Ended(self.id.handle, digest, self.subject_known or sealed)]
        self.abandoned, self.foreign = self.foreign or self.abandoned, None
        self.forget()
        if self.state in (LIVE, NEW):
            self.state = NEW
            self.id = None

    def unremember(self) -> None:
        """End the sessions that seals of remember cookies name, and delete those: part of each logout.

        A seal says itself whose they are, so this takes no login. While the store is away, a ticket makes up for it, as for a logout.
        """
        remembered, self.remembered = self.remembered, None
        if remembered is None:
            return
        named = {handle: one.subject for one in remembered for handle in (one.newest, one.first)}
        named.pop(self.handle or "", None)
        self.accessed = True
        others = (Ended(handle, "", subject) for handle, subject in named.items())
        self.ended = [Ended("", "", None), *others, *self.ended]

    def expire(self) -> None:
        """The session is over for whoever reads it here: by a moment that the application has set."""
        gone(self, "expired")

    def coming_id(self) -> SessionId | None:
        """The id that the next write gives the session, made now; or the one that it has, if no write gives it another."""
        if self.next is None:
            if self.state is NEW:
                self.next = SessionId.new(self.service.random)
            elif self.rotation_pending and self.id is not None:
                self.next = self.id.rotated(self.service.random)
        return self.next or self.id

    # Saving

    def unwritten(self, *, inside: bool) -> bool:
        """Whether anything was changed that is not written.

        Args:
            inside: whether to look inside of values, too, which takes as long as to encode all that were read. In Python's development
                mode that is done in any case.
        """
        if self.state is not LIVE and self.state is not NEW:
            return False
        content = self.content
        if content.changed or content.removed or self.ended:
            return True
        return (inside or sys.flags.dev_mode) and content.changed_inside()

    def lose(self) -> None:
        """Forget what was to be written, but for a logout: the response says that the request failed."""
        self.content.lose()
        self.login_pending = self.next = None
        self.rotation_pending = self.force = self.strict = False

    def discard(self) -> None:
        """Forget what was to be written: the request failed without a response, so nobody would be told of a new id."""
        self.ended = ()
        self.forget()
        self.state = State.AWAY if self.id is not None else NEW

    def __repr__(self) -> str:
        return f"Session({self.handle!r}, {self.state.value})"
