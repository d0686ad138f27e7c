"""WebSockets under uvicorn with each of its implementations, with a real client and a real store."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import pytest

from tests.processes import Served
from tests.servers import Valkey, poll

pytest.importorskip("uvicorn", reason="needs uvicorn")
websockets = pytest.importorskip("websockets", reason="needs websockets")

from websockets.asyncio.client import ClientConnection, connect  # noqa: E402 - after it is known to be there
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402 - likewise

SITE = """
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from failsoft import limit
from failsoft_starlette import FailsoftMiddleware

def echo(*policies):
    async def endpoint(websocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)
    for policy in policies:
        endpoint = policy(endpoint)
    return endpoint

class Talk(WebSocketEndpoint):
    encoding = "text"
    @limit("7/hour", shared="talk", on_outage="closed")
    async def on_receive(self, websocket, data):
        await websocket.send_text(data)

async def length(request):
    return PlainTextResponse(str(len(await request.body())))

async def cost(request):
    return len((await request.json())["items"])

HOUR = {"on_outage": "closed"}
app = Starlette(
    routes=[
        Route("/up", lambda request: PlainTextResponse("up")),
        WebSocketRoute("/once", echo(limit("1/hour", name="once", **HOUR))),
        WebSocketRoute("/edge", echo(limit("20/hour", **HOUR))),
        WebSocketRoute("/messages", echo(limit("100/hour", messages=True, name="chat", **HOUR))),
        WebSocketRoute("/flood", echo(limit("20/hour", messages=True, **HOUR))),
        WebSocketRoute("/talk", Talk),
        Mount("/sub", routes=[WebSocketRoute("/local", echo(limit("3/hour", messages=True, on_outage="local")))]),
        WebSocketRoute("/closed", echo(limit("1000000/hour", messages=True, on_outage="closed"))),
        WebSocketRoute("/closed-door", echo(limit("1000000/hour", on_outage="closed"))),
        Route("/length", limit("99/hour", cost=cost)(length), methods=["POST"]),
    ],
    middleware=[Middleware(FailsoftMiddleware)],
)
"""

IMPLEMENTATIONS = ["websockets", "websockets-sansio", "wsproto"]


def how(closed: ConnectionClosed) -> tuple[int | None, str]:
    """With which code and reason the server closed."""
    return (None, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


class Running(Served):
    """The site above under uvicorn."""

    def open(self, path: str) -> connect:
        """A WebSocket."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=20, close_timeout=20, proxy=None)

    async def status(self, path: str) -> int:
        """What an opening is answered with."""
        try:
            async with self.open(path):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    async def talk(self, path: str, *texts: str) -> tuple[list[str], int | None, str]:
        """Send `texts`, each after the answer to the one before: the answers, and how the server closed."""
        answers: list[str] = []
        async with self.open(path) as ws:
            try:
                for text in texts:
                    await ws.send(text)
                    answers.append(str(await asyncio.wait_for(ws.recv(), 20)))
            except ConnectionClosed as closed:
                return answers, *how(closed)
        return answers, None, ""


Run = Callable[..., Running]


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs the site, until the tests of an implementation end."""
    if request.param == "wsproto":
        pytest.importorskip("wsproto", reason="needs wsproto")
    command = [sys.executable, "-W", "ignore", "-m", "uvicorn", "--log-level", "warning", "--ws", request.param]
    with ExitStack() as stack:

        def run(store: str, **settings: str) -> Running:
            directory = tmp_path_factory.mktemp("site")
            (directory / "site_under_test.py").write_text(SITE)
            variables = {f"FAILSOFT_{name.upper()}": value for name, value in {**settings, "store": store}.items()}
            words = [*command, "--port={port}", "site_under_test:app"]
            return stack.enter_context(Running(words, directory, cwd=directory, **variables))

        yield run


@pytest.fixture(scope="module")
def server(run: Run, shared_valkey: Valkey) -> Running:
    """One that has its store all the time."""
    return run(shared_valkey.url, prefix=f"ws-{uuid4()}", deadline="5s")


@pytest.mark.timeout(120)
def test_limits_are_exact(server: Running) -> None:
    """Of many sockets opened at once exactly as many are opened as the limit says; of all their messages exactly as many pass."""

    async def refused_once() -> tuple[int, Any, Any, Any]:
        assert 101 == await server.status("/once")
        with pytest.raises(InvalidStatus) as refused:
            async with server.open("/once"):
                pass
        response = refused.value.response
        assert response.body is not None
        return (
            response.status_code,
            response.headers["Retry-After"],
            response.headers["RateLimit"],
            json.loads(response.body),
        )

    status, wait, field, problem = asyncio.run(refused_once())
    assert (429, True, True, ["once"]) == (
        status,
        int(wait) > 0,
        field.startswith('"once";r=0'),
        problem["violated-policies"],
    )

    async def together(work: Callable[[int], Coroutine[Any, Any, Any]]) -> list[Any]:
        return list(await asyncio.gather(*(work(number) for number in range(50))))

    statuses = asyncio.run(together(lambda number: server.status("/edge")))
    assert (20, 30) == (statuses.count(101), statuses.count(429))

    talks = asyncio.run(together(lambda number: server.talk("/messages", *(f"{number}.{n}" for n in range(5)))))
    assert 100 == sum(len(answers) for answers, _, _ in talks)
    assert [answers for answers, _, _ in talks] == [
        [f"{number}.{n}" for n in range(len(answers))] for number, (answers, _, _) in enumerate(talks)
    ]
    cut = [(code, reason) for answers, code, reason in talks if len(answers) < 5]
    assert {1008} == {code for code, _ in cut}
    assert all("chat" in reason for _, reason in cut)

    answers, code, _ = asyncio.run(server.talk("/talk", *"0123456789"))
    assert (list("0123456"), 1008) == (answers, code)


@pytest.mark.timeout(120)
def test_flood_on_one_socket(server: Running) -> None:
    """Of messages that are sent without waiting for answers exactly as many pass as well."""

    async def flood() -> tuple[int, int | None]:
        received = 0
        async with server.open("/flood") as ws:
            sending = asyncio.create_task(send_all(ws))
            try:
                while True:
                    await asyncio.wait_for(ws.recv(), 20)
                    received += 1
            except ConnectionClosed as closed:
                await sending
                return received, how(closed)[0]

    async def send_all(ws: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            for number in range(45):  # no more than servers take in before somebody receives
                await ws.send(str(number))

    assert (20, 1008) == asyncio.run(flood())


@pytest.mark.timeout(120)
def test_outage(run: Run) -> None:
    """While the store is dead each opening and each message does what its limit says; when it is back, they are counted again."""
    with Valkey() as store:
        server = run(store.url)
        poll(lambda: asyncio.run(server.talk("/closed", "x"))[0] == ["x"], within=30)

        async def through_an_outage() -> tuple[Any, ...]:
            async with server.open("/closed") as ws:
                await ws.send("before")
                assert "before" == await ws.recv()
                store.kill()
                await ws.send("after")
                with pytest.raises(ConnectionClosed) as closed:
                    await asyncio.wait_for(ws.recv(), 20)
                return how(closed.value)

        code, reason = asyncio.run(through_an_outage())
        assert (1013, True) == (code, "1000000-per-hour" in reason)
        assert 503 == asyncio.run(server.status("/closed-door"))
        answers, code, _ = asyncio.run(server.talk("/sub/local", *"12345"))
        assert (["1", "2", "3"], 1008) == (answers, code)
        store.start()
        poll(lambda: asyncio.run(server.status("/closed-door")) == 101, within=30)
        assert (["x", "y"], None, "") == asyncio.run(server.talk("/closed", "x", "y"))


@pytest.mark.timeout(120)
def test_bodies_under_a_server(run: Run, request: pytest.FixtureRequest) -> None:
    """A body that a cost function reads arrives whole in the view, whether it comes at once or in pieces."""
    if "sansio" not in request.node.callspec.id:
        pytest.skip("one server is enough")
    server = run("memory://")
    body = json.dumps({"items": [1, 2], "text": "x" * 300_000}).encode()
    for chunked in (False, True):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        given: Any = iter([body[:7], body[7:100_000], body[100_000:]]) if chunked else body
        connection.request("POST", "/length", given, {"Content-Type": "application/json"}, encode_chunked=chunked)
        response = connection.getresponse()
        assert (200, str(len(body)).encode()) == (response.status, response.read())
        connection.close()
