"""WebSockets in miniature: one conversation with an ASGI application, without a socket.

The client sends all that it has to say and leaves. Messages that an application must not send at that time are noticed: the table says
which it may (ASGI, "WebSocket Connection Scope").
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from failsoft.testing.harness import Conversation

__all__ = ["converse"]

_Message = MutableMapping[str, Any]

_NEXT: Final[Mapping[str, Mapping[str, str]]] = {
    "opening": {
        "websocket.accept": "open",
        "websocket.close": "closed",
        "websocket.http.response.start": "answering",
    },
    "open": {"websocket.send": "open", "websocket.close": "closed"},
    "answering": {"websocket.http.response.body": "answering"},
    "closed": {},
}
"""State, what an application may send in it, and the state that follows."""


async def converse(
    application: Callable[..., Awaitable[None]], scope: MutableMapping[str, Any], texts: Iterable[str]
) -> Conversation:
    """Open a WebSocket, send `texts`, and leave.

    Args:
        application: the ASGI callable.
        scope: of the socket.
        texts: what the client sends.
    """
    client = _Client(texts)
    raised: BaseException | None = None
    try:
        await application(scope, client.receive, client.send)
    except Exception as error:
        raised = error
    return client.told(raised)


class _Client:
    def __init__(self, texts: Iterable[str]) -> None:
        self._to_send: deque[_Message] = deque({"type": "websocket.receive", "text": text} for text in texts)
        self._to_send.appendleft({"type": "websocket.connect"})
        self._state = "opening"
        self._sent: list[_Message] = []

    async def receive(self) -> _Message:
        await asyncio.sleep(0)  # what a client has to say is never there at once
        if self._state == "closed":
            return {"type": "websocket.disconnect", "code": self._sent[-1].get("code", 1000)}
        if not self._to_send:
            return {"type": "websocket.disconnect", "code": 1000}
        if self._state != "open" and self._to_send[0]["type"] == "websocket.receive":
            raise AssertionError("the application wants to receive before it accepted")
        return self._to_send.popleft()

    async def send(self, message: _Message) -> None:
        await asyncio.sleep(0)
        following = _NEXT[self._state].get(message["type"])
        if following is None:
            raise AssertionError(f"{message['type']} was sent to a socket that is {self._state}")
        self._state = following
        self._sent.append(message)

    def told(self, raised: BaseException | None) -> Conversation:
        start: _Message = self._sent[0] if self._sent else {"type": "", "status": 500}
        closing: _Message = self._sent[-1] if self._state == "closed" else {}
        return Conversation(
            status={"websocket.accept": 101, "websocket.close": 403}.get(start["type"]) or start["status"],
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())],
            body=b"".join(one["body"] for one in self._sent if one["type"] == "websocket.http.response.body"),
            raised=raised,
            texts=tuple(one["text"] for one in self._sent if one["type"] == "websocket.send"),
            code=closing.get("code", 1000) if closing else None,
            reason=closing.get("reason") or "",
        )
