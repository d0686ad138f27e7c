"""What failsoft raises.

    FailsoftError
    ├── ConfigurationError        a setting or a declaration is wrong; raised at start, names cause and cure
    ├── OutsideRequest            a decorated function was called where no request is being served
    ├── Rejected                  this request is refused; carries a status, a problem and a `retry_after`
    │   ├── RateLimited           429, a quota is used up
    │   ├── Unavailable           503, there are more requests than can be served; or a limit that needs its store has lost it
    │   │   └── SessionUnavailable    503, the session's store is away
    │   └── SessionConflict       409, the session ended or moved while this request was about to write to it
    ├── SessionTooLarge           what is put into the session does not fit
    ├── SessionValueError         a value that a session cannot hold was assigned; also a TypeError
    ├── StoreUnavailable          no answer can be had from the store; `reason` says why
    └── OperationFailed           the store answered one operation with an error; the others of its flight stand

`StoreUnavailable` and `OperationFailed` never reach a view: each feature has a written answer to both.
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from failsoft.problem import Problem

__all__ = [
    "ConfigurationError",
    "FailsoftError",
    "OperationFailed",
    "OutsideRequest",
    "RateLimited",
    "Rejected",
    "SessionConflict",
    "SessionTooLarge",
    "SessionUnavailable",
    "SessionValueError",
    "StoreUnavailable",
    "Unavailable",
    "UnavailableReason",
]

UnavailableReason = Literal["open", "no_connection", "timeout", "refused", "broken", "local_lag", "closed"]
"""Why a store gave no answer.

``open``: its breaker is open, nothing was tried. ``no_connection``: none is warm. ``timeout``: no whole reply within the
deadline. ``refused``: the connection was refused. ``broken``: it died under us. ``local_lag``: this process was
too busy to ask, or to read in time, which says nothing about the store. ``closed``: we closed the store ourselves.
"""


class FailsoftError(Exception):
    """Base of everything failsoft raises."""


class ConfigurationError(FailsoftError):
    """A setting or a declaration is wrong. The message names the key, what was given and what is accepted."""


class OutsideRequest(FailsoftError):
    """A decorated function was called where no request is being served."""


class Rejected(FailsoftError):
    """This request is refused.

    Adapters turn it into a response; a view may catch it.

    Attributes:
        problem: the RFC 9457 description of the refusal, with its status and title.
        retry_after: whole seconds the client should wait, or None where waiting does not help.
        headers: further header fields of the answer.
    """

    def __init__(
        self,
        problem: "Problem",
        *,
        retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(f"{problem.status} {problem.title}")
        self.problem = problem
        self.retry_after = retry_after
        self.headers = headers

    @property
    def status(self) -> int:
        """The HTTP status of the answer."""
        return self.problem.status


class RateLimited(Rejected):
    """A quota is used up (429)."""


class Unavailable(Rejected):
    """There are more requests than can be served, or a limit that must not run without its store has lost its store (503)."""


class SessionUnavailable(Unavailable):
    """The session cannot be read, or what was written to it was not taken, because its store is away (503)."""


class SessionConflict(Rejected):
    """The session ended, or moved to another id, while this request was about to write to it; nothing was written (409)."""


class SessionTooLarge(FailsoftError, ValueError):
    """What is put into the session does not fit. The message names the key, its size and the setting."""


class SessionValueError(FailsoftError, TypeError):
    """A value cannot be held by a session. The message names its key, the place inside it, its type and what is accepted."""


class StoreUnavailable(FailsoftError):
    """No answer can be had from the store.

    Attributes:
        reason: one of `UnavailableReason`.
    """

    def __init__(self, reason: UnavailableReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: UnavailableReason = reason


class OperationFailed(FailsoftError):
    """The store answered one operation with an error (a script error, an ACL, a wrong type, OOM).

    Attributes:
        code: what kind of error, in the store's words (``"OOM"``).
    """

    def __init__(self, message: str, *, code: str = "ERR") -> None:
        super().__init__(message)
        self.code = code
