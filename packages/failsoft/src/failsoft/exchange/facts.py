"""What an adapter tells the core about a request.

Plain values and a few questions, answered lazily: a request that needs nothing costs nothing. Each adapter subclasses
`Facts` in its `translate` module; nothing else in failsoft looks at a framework's request.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import Signature, signature
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from failsoft.errors import ConfigurationError
from failsoft.exchange.places import line_of, place_of

if TYPE_CHECKING:
    from failsoft.exchange.exchange import Exchange

__all__ = ["FORMS", "METHODS", "NOT_YET", "Facts", "NotYet", "Question", "json_field", "submitted_field"]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Methods that are told apart; all others are one, because a client can invent as many as it likes."""


FORMS: Final = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
"""The media types of forms."""


@final
class NotYet:
    """The type of `NOT_YET`."""

    def __repr__(self) -> str:
        return "NOT_YET"


NOT_YET: Final = NotYet()
"""The answer to a question that can be answered later in this request, but not now."""

_NAMES, _NAME = 16, 64
"""How many names of arguments a message shows, and how long they may be."""


def _fits(parameters: Signature, args: Any, kwargs: Any) -> bool:
    try:
        parameters.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


class Question:
    """A function of the user's that must be answered before a decision; only drivers call it.

    Args:
        function: called with the framework's request; a late one with the arguments of the view.
        late: answered just before the view's body, not at the start of the request.
    """

    __slots__ = ("asynchronous", "function", "late")

    def __init__(self, function: Callable[..., Any], *, asynchronous: bool, late: bool = False) -> None:
        self.function = function
        self.asynchronous = asynchronous
        self.late = late

    def __repr__(self) -> str:
        return f"Question({self.function!r})"

    def asked_late(self, exchange: "Exchange", args: Any, kwargs: Any) -> Any:
        """What the function says to the arguments of the view.

        Raises:
            ConfigurationError: they do not fit its parameters.
        """
        try:
            return self.function(*args, **(kwargs or {}))
        except TypeError:
            try:
                parameters = signature(self.function, follow_wrapped=False)
            except Exception:  # written in C, it may have none
                parameters = None
            if parameters is None or _fits(parameters, args, kwargs or {}):
                raise
        route = exchange.plan.route
        # A decorator may give the view what a client has sent, under names that the client chose.
        named = [f"{name}=..." for name in kwargs or () if name.isidentifier() and len(name) <= _NAME][:_NAMES]
        given = [*("..." for _ in args), *named, *(["**..."] if len(named) < len(kwargs or ()) else ())]
        raise ConfigurationError(
            f"the limit on {route.method} {route.template} is by late({place_of(self.function)}) ({line_of(self.function)}), which is "
            f"called as the view is, with ({', '.join(given)}), and its parameters are {parameters}: give it those of the view"
        )


class Facts:
    """One request, as an adapter describes it.

    Attributes:
        request: the framework's own request object, for callables that users give.
        method: the HTTP method, upper case.
        endpoint: the view that will serve the request, or None where it is not known (404, an opaque mount).
        route: the template of the route ("/items/{id}"), or None.
        synchronous: whether the framework serves this request on a thread of its own, so that waiting holds up nobody else.
        opens_socket: whether it opens a socket (a WebSocket, RFC 6455), over which messages will come.
    """

    synchronous: ClassVar[bool] = True
    opens_socket: ClassVar[bool] = False

    __slots__ = ("endpoint", "method", "request", "route")

    request: Any
    method: str
    endpoint: Any
    route: str | None

    def targets(self) -> Sequence[Any]:
        """Everything that may carry declarations for this request: the view, its class, its method's handler."""
        return () if self.endpoint is None else (self.endpoint,)

    def message_targets(self) -> Sequence[Any]:
        """Of a request that opens a socket: what may carry declarations for each message, whatever they say themselves."""
        return ()

    def peer(self) -> str | None:
        """The address at the other end of the socket, as the server tells it."""
        raise NotImplementedError(f"{type(self).__name__}.peer")

    def header_lines(self, name: str) -> Sequence[str]:
        """Every line of the header field `name` (lower case), in order."""
        raise NotImplementedError(f"{type(self).__name__}.header_lines")

    def header(self, name: str) -> str | None:
        """The header field `name` (lower case), its lines joined, or None."""
        lines = self.header_lines(name)
        # HTTP/2 may cut the cookies into several lines (RFC 9113, section 8.2.3).
        return ("; " if name == "cookie" else ", ").join(lines) if lines else None

    def path(self) -> str:
        """The path within the application, percent-decoded, beginning with "/"."""
        raise NotImplementedError(f"{type(self).__name__}.path")

    def name(self) -> str | None:
        """What the framework calls the endpoint, where it has names for them."""
        return None

    def groups(self) -> Sequence[str]:
        """What the framework calls the part of the application that the view belongs to: blueprints, namespaces."""
        return ()

    def environ(self) -> Mapping[str, Any] | None:
        """The WSGI environment (PEP 3333), or None where the server speaks something else."""
        return None

    def submitted(self, name: str) -> str | Awaitable[str | None] | None:
        """The field `name` of what the request submits, a form or a JSON object; the view can read the body all the same.

        None where there is no such field, or it is no text. A body whose media type is not a form's is tried as JSON: a client
        chooses what it calls its body, and a view that does not care must not be limited by less than it reads.
        """
        raise NotImplementedError(f"{type(self).__name__}.submitted")

    def user(self) -> str | NotYet | None:
        """Who the framework says is asking: an identifier, None for nobody, or `NOT_YET`."""
        return None

    async def load_user(self) -> None:
        """Get ready to say who `user` is. Drivers await it on an event loop, before a decision that counts users."""

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for an awaitable from synchronous code. Only called where the driver is synchronous."""
        raise NotImplementedError(f"{type(self).__name__}.run")


def json_field(body: bytes, name: str) -> str | None:
    """The field `name` of the JSON object that `body` is, text or a whole number; None where it is nothing of that kind."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = found.get(name) if isinstance(found, dict) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def submitted_field(form: str | None, body: bytes, name: str) -> str | None:
    """The field `name` of a body whose type says that it is a form.

    Views may read JSON whatever the type says, so a client must not be able to hide it behind another one. A body that says one thing
    as a form and another as JSON is no honest client's: all of them are one.

    Args:
        form: the field as the form has it, or None.
        body: the whole body.
        name: of the field.
    """
    found = json_field(body, name)
    if form is None or found is None or found == form:
        return found if form is None else form
    return "\0a body that is a form and JSON"
