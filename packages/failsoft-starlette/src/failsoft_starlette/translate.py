"""Between Starlette's scope and the core's facts."""

from collections.abc import Awaitable, Iterable, Sequence
from functools import lru_cache
from typing import Any, ClassVar

from anyio import from_thread
from starlette.requests import Request
from starlette.types import Scope

from failsoft.exchange import NOT_YET, Facts, NotYet
from failsoft_starlette.routes import Entry

__all__ = ["StarletteFacts", "encode"]


class StarletteFacts(Facts):
    """A request, read from its scope."""

    synchronous: ClassVar[bool] = False

    __slots__ = ("_entry", "_scope")

    def __init__(self, scope: Scope, entry: Entry | None, serves: bool) -> None:
        self._scope = scope
        self._entry = entry if serves else None
        self.method = scope["method"]
        self.endpoint = entry.endpoint if entry is not None and serves else None
        self.route = None if entry is None else entry.template

    @property
    def request(self) -> Request:
        """A request without a body: reading it here would take it from the view."""
        return Request(self._scope)

    def targets(self) -> Sequence[Any]:
        return () if self._entry is None else self._entry.targets(self.method)

    def peer(self) -> str | None:
        client = self._scope.get("client")
        return client[0] if client else None

    def port(self) -> int | None:
        """The port at the other end of the socket."""
        client = self._scope.get("client")
        return client[1] if client else None

    def header_lines(self, name: str) -> Sequence[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in self._scope["headers"] if key == wanted]

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Wait in a view's thread for what the event loop works out."""

        async def wait() -> Any:
            return await awaitable

        return from_thread.run(wait)

    def path(self) -> str:
        path: str = self._scope["path"]
        root: str = self._scope.get("root_path", "")
        # Servers differ in whether the path has the prefix that a proxy took off; Starlette takes it so.
        return (path[len(root) :] or "/") if root and (path + "/").startswith(root + "/") else path

    def user(self) -> str | NotYet | None:
        """The user of AuthenticationMiddleware or its like, which puts one into the scope."""
        if "user" not in self._scope:
            return NOT_YET
        user = self._scope["user"]
        if user is None or not getattr(user, "is_authenticated", True):
            return None
        for attribute in ("identity", "id", "username", "display_name"):
            try:
                value = getattr(user, attribute)
            except (
                AttributeError,
                NotImplementedError,
            ):  # Starlette's BaseUser declares identity and does not have one
                continue
            if value is not None:
                return str(value)
        return str(user) if isinstance(user, str | int) else None


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")


def encode(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Header fields as ASGI writes them."""
    return [(_name(name), value.encode("latin-1")) for name, value in fields]
