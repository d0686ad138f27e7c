"""Servers in miniature: a WSGI or an ASGI application as an `App` of the contract, without a socket.

They do what servers do and test clients do not: several requests at once on threads or tasks of their own, each piece
of a body taken before the next is made, clients that hang up, tasks that are cancelled, and protocol mistakes that are
noticed. A request sees no context of the test's. Nothing waits longer than `PATIENCE`.
"""

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from failsoft.runtime import Runtime
from failsoft.testing.harness import PEER, App, Conversation, Reply
from failsoft.testing.sockets import converse

__all__ = ["PATIENCE", "AsgiApp", "WsgiApp"]

PATIENCE = 30.0
"""Seconds after which a request counts as hanging; generous, for loaded machines."""

_READ = 65_536
"""Bytes of a body that a server hands on at once."""

_Headers = Iterable[tuple[str, str]]
_OnChunk = Callable[[bytes], None]
_Message = MutableMapping[str, Any]
_T = TypeVar("_T")


def _nothing() -> None:
    pass


class WsgiApp(App):
    """A WSGI application (PEP 3333); each request on the caller's thread, bursts on threads of their own.

    Args:
        application: the WSGI callable.
        runtime: the failsoft in it; closed with the app.
        on_close: called at the end of `close`.
    """

    def __init__(
        self, application: Callable[..., Iterable[bytes]], runtime: Runtime, *, on_close: Callable[[], None] = _nothing
    ) -> None:
        self.application = application
        self.runtime = runtime
        self._on_close = on_close

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: _Headers = (),
        peer: str | None = PEER,
        body: bytes = b"",
        on_chunk: _OnChunk | None = None,
    ) -> Reply:
        return self._serve(_environ(method, path, headers, peer, body), on_chunk, pieces=None)

    def burst(self, n: int, method: str, path: str, *, headers: _Headers = (), peer: str | None = PEER) -> list[Reply]:
        lines = list(headers)
        together = threading.Barrier(n)

        def one() -> Reply:
            together.wait(PATIENCE)
            return self.request(method, path, headers=lines, peer=peer)

        with ThreadPoolExecutor(n) as threads:
            return [future.result(PATIENCE) for future in [threads.submit(one) for _ in range(n)]]

    def abandon(self, path: str) -> bytes:
        return self._serve(_environ("GET", path, (), PEER), None, pieces=1).body

    def close(self) -> None:
        self.runtime.close()
        self._on_close()

    def _serve(self, environ: dict[str, Any], on_chunk: _OnChunk | None, *, pieces: int | None) -> Reply:
        started: list[tuple[str, list[tuple[str, str]]]] = []
        body: list[bytes] = []

        def take(chunk: bytes) -> None:
            if not chunk:
                return
            if not started:
                raise AssertionError("a piece of the body came before start_response was called")
            body.append(chunk)
            if on_chunk is not None:
                on_chunk(chunk)

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> _OnChunk:
            if started and exc_info is None:
                raise AssertionError("start_response was called twice")
            if exc_info is not None and body:
                raise exc_info[1]
            started[:] = [(status, list(headers))]
            return take

        raised: BaseException | None = None
        try:
            result = self.application(environ, start_response)
            try:
                for chunk in result:
                    take(chunk)
                    if pieces is not None and len(body) >= pieces:
                        break
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except Exception as error:
            raised = error
        if not started:
            return Reply(status=500, raised=raised)
        status, lines = started[0]
        content = b"" if environ["REQUEST_METHOD"] == "HEAD" else b"".join(body)
        return Reply(status=int(status.split()[0]), headers=lines, body=content, raised=raised)


def _environ(method: str, path: str, headers: _Headers, peer: str | None, body: bytes = b"") -> dict[str, Any]:
    bare, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(bare).decode("latin-1"),
        "QUERY_STRING": query,
        "REMOTE_ADDR": peer or "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "testserver",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers:
        key = name.upper().replace("-", "_")
        key = key if key == "CONTENT_TYPE" else "HTTP_" + key
        environ[key] = f"{environ[key]},{value}" if key in environ and key != "HTTP_HOST" else value
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ


class AsgiApp(App):
    """An ASGI application (ASGI 3.0); its event loop runs on a thread of its own, as long as the app is open.

    Args:
        application: the ASGI callable. Its lifespan is run where it supports that.
        runtime: the failsoft in it; closed with the app.
        on_close: called at the end of `close`.
    """

    def __init__(
        self, application: Callable[..., Awaitable[None]], runtime: Runtime, *, on_close: Callable[[], None] = _nothing
    ) -> None:
        self.application = application
        self.runtime = runtime
        self._on_close = on_close
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="failsoft-testing-loop", daemon=True)
        self._thread.start()
        self._lifespan = _Lifespan(application)
        try:
            self._run(self._lifespan.start())
        except BaseException:
            self._end_loop()
            raise

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: _Headers = (),
        peer: str | None = PEER,
        body: bytes = b"",
        on_chunk: _OnChunk | None = None,
    ) -> Reply:
        connection = _Connection(_scope(method, path, headers, peer, body), on_chunk, body=body)
        return self._run(connection.serve(self.application))

    def burst(self, n: int, method: str, path: str, *, headers: _Headers = (), peer: str | None = PEER) -> list[Reply]:
        lines = list(headers)

        async def together() -> list[Reply]:
            connections = [_Connection(_scope(method, path, lines, peer), None) for _ in range(n)]
            return list(await asyncio.gather(*[one.serve(self.application) for one in connections]))

        return self._run(together())

    def abandon(self, path: str) -> bytes:
        connection = _Connection(_scope("GET", path, (), PEER), None, pieces=1)
        return self._run(connection.serve(self.application)).body

    def cancel(self, path: str, *, when: threading.Event) -> bool:
        async def cancelled() -> bool:
            connection = _Connection(_scope("GET", path, (), PEER), None)
            task = asyncio.ensure_future(connection.serve(self.application))
            while not when.is_set() and not task.done():  # noqa: ASYNC110 - the event is set by any thread
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

        return self._run(cancelled())

    def websocket(
        self, path: str, *texts: str, headers: _Headers = (), peer: str | None = PEER, denial: bool = True
    ) -> Conversation:
        return self._run(converse(self.application, _socket_scope(path, headers, peer, denial=denial), texts))

    def close(self) -> None:
        try:
            self._run(self._end())
        finally:
            try:
                self._end_loop()
            finally:
                self.runtime.close()
                self._on_close()

    async def _end(self) -> None:
        await self._lifespan.stop()
        await self.runtime.store.aclose()

    def _end_loop(self) -> None:
        try:
            self._run(self._shut_down())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()

    async def _shut_down(self) -> None:
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run `work` on the loop, in an empty context, and wait for it."""
        # As `asyncio.run_coroutine_threadsafe` with `asyncio.wait_for` in it, in a quarter less time: there is one task, not two.
        done: Future[_T] = Future()

        def begin() -> None:
            task = self._loop.create_task(work, context=Context())
            hanging = self._loop.call_later(PATIENCE, task.cancel)

            def end(task: asyncio.Task[_T]) -> None:
                hanging.cancel()
                if task.cancelled():
                    done.set_exception(TimeoutError(f"cancelled, or unfinished after {PATIENCE} s"))
                elif (error := task.exception()) is not None:
                    done.set_exception(error)
                else:
                    done.set_result(task.result())

            task.add_done_callback(end)

        self._loop.call_soon_threadsafe(begin)
        return done.result(PATIENCE + 5)


def _scope(method: str, path: str, headers: _Headers, peer: str | None, body: bytes = b"") -> dict[str, Any]:
    bare, _, query = path.partition("?")
    lines = [*headers, *([("content-length", str(len(body)))] if body else ())]
    if not any(name.lower() == "host" for name, _ in lines):
        lines.insert(0, ("host", "testserver"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(bare).decode(),
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines],
        "client": None if peer is None else (peer, 50_000),
        "server": ("testserver", 80),
        "state": {},
    }


def _socket_scope(path: str, headers: _Headers, peer: str | None, *, denial: bool) -> dict[str, Any]:
    scope = _scope("GET", path, headers, peer)
    del scope["method"]
    extensions: dict[str, Any] = {"websocket.http.response": {}} if denial else {}
    return scope | {"type": "websocket", "scheme": "ws", "subprotocols": [], "extensions": extensions}


class _Connection:
    """One HTTP request over ASGI."""

    def __init__(
        self, scope: dict[str, Any], on_chunk: _OnChunk | None, *, body: bytes = b"", pieces: int | None = None
    ) -> None:
        self._scope = scope
        self._to_send = [body[start : start + _READ] for start in range(0, len(body), _READ)] or [b""]
        self._on_chunk = on_chunk
        self._pieces = pieces
        self._gone = asyncio.Event()
        self._start: _Message | None = None
        self._body: list[bytes] = []
        self._complete = False

    async def serve(self, application: Callable[..., Awaitable[None]]) -> Reply:
        raised: BaseException | None = None
        try:
            await application(self._scope, self._receive, self._send)
        except Exception as error:
            raised = error
        finally:
            self._gone.set()
        if self._start is None:
            return Reply(status=500, raised=raised)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._start.get("headers", ())]
        content = b"" if self._scope["method"] == "HEAD" else b"".join(self._body)
        return Reply(status=self._start["status"], headers=headers, body=content, raised=raised)

    async def _receive(self) -> _Message:
        if self._to_send:
            piece = self._to_send.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._to_send)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            if self._start is not None:
                raise AssertionError("http.response.start was sent twice")
            self._start = message
        elif message["type"] == "http.response.body":
            if self._start is None or self._complete:
                raise AssertionError("http.response.body was sent before http.response.start, or after the end")
            self._take(message.get("body", b""))
            if not message.get("more_body", False):
                self._complete = True
                self._gone.set()

    def _take(self, chunk: bytes) -> None:
        # Who has hung up hears no more; a server drops what the application still sends.
        if not chunk or (self._pieces is not None and len(self._body) >= self._pieces):
            return
        self._body.append(chunk)
        if self._on_chunk is not None:
            self._on_chunk(chunk)
        if self._pieces is not None and len(self._body) >= self._pieces:
            self._gone.set()


class _Lifespan:
    """The lifespan of an ASGI application; one that raises at once has none."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self._application = application
        self._to_send: asyncio.Queue[_Message] = asyncio.Queue()
        self._sent: asyncio.Queue[_Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())
        await self._exchange("startup")

    async def stop(self) -> None:
        if self._task is not None and not self._task.done():
            await self._exchange("shutdown")
            await self._task

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        try:
            await self._application(scope, self._to_send.get, self._sent.put)
        except Exception:  # Django, for one, knows only HTTP, and the specification says to go on without
            await self._sent.put({"type": "unsupported"})
        else:
            await self._sent.put({"type": "ended"})

    async def _exchange(self, phase: str) -> None:
        await self._to_send.put({"type": f"lifespan.{phase}"})
        answer = await self._sent.get()
        if answer["type"].endswith(".failed"):
            raise RuntimeError(f"the application's {phase} failed: {answer.get('message', '')}")
