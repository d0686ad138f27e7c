"""A primary dies under load: in every framework nobody gets an error or another one's answer, and counting goes on."""

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pytest

from failsoft import limit
from failsoft.clock import SYSTEM
from failsoft.errors import OperationFailed, Rejected, StoreUnavailable
from failsoft.exchange import Answers, Bound, Exchange, Operation, Participant, Policy, Question, Route, Script, Table
from failsoft.ratelimit.identity import IP
from failsoft.testing.harness import Harness
from failsoft.testing.site import Site, View
from tests.django.harness import AsgiHarness
from tests.flask.harness import FlaskHarness
from tests.sentinels import Watched
from tests.servers import Lag, poll
from tests.starlette.harness import StarletteHarness

LOAD: Final = Script("mine.load", "return redis.call('GET', KEYS[1])")
SAVE: Final = Script("mine.save", "redis.call('SET', KEYS[1], ARGV[1], 'EX', 600) return 1")


class Step:
    """Reads or writes a client's key."""

    def __init__(self, script: Script, key: str, *arguments: str) -> None:
        self.script = script
        self.keys = (key,)
        self.arguments: Sequence[str] = arguments

    def parse(self, reply: Any) -> Any:
        return reply.decode() if isinstance(reply, bytes) else reply

    def apply(self, table: Table, now: float) -> Any:
        raise NotImplementedError("this test is about servers")


class Mine:
    """A concern that keeps a client's own name for it, and says in a header field what it found."""

    name = "mine"

    def bind(self, route: Route, policies: Sequence[Policy], *, late: bool) -> Bound | None:
        return None if late else self

    questions: Sequence[Question] = ()

    def join(self, exchange: Exchange) -> Participant | None:
        return Part(str(IP.of(exchange)))


class Part:
    """One client's request."""

    def __init__(self, client: str) -> None:
        self._key, self._client = f"mine:{client}", client
        self._found = "nothing"
        self.operations: Sequence[Operation] = (Step(LOAD, self._key),)

    def receive(self, answers: Answers) -> Rejected | None:
        answer = answers if isinstance(answers, StoreUnavailable) else answers[0]
        if not isinstance(answer, (StoreUnavailable, OperationFailed)):
            self._found = answer or "nothing"
        return None

    def settle(self, status: int) -> Sequence[Operation]:
        return (Step(SAVE, self._key, self._client),)

    def headers(self) -> Iterable[tuple[str, str]]:
        return [("Mine", self._found)]


class Client(threading.Thread):
    """Asks again and again, and remembers what was wrong, and how often it was served as it should be."""

    def __init__(self, app: Any, number: int, stop: threading.Event) -> None:
        super().__init__()
        self._app, self._stop_asking = app, stop
        self._peer = f"192.0.2.{number}"
        self.wrong: list[str] = []
        self.well = 0

    def run(self) -> None:
        while not self._stop_asking.wait(0.05):
            reply = self._app.get("/", peer=self._peer)
            mine = reply.header("mine")
            if reply.status != 200 or mine not in (f"ip:{self._peer}", "nothing"):
                self.wrong.append(f"{reply.status} {mine}")
            self.well += mine != "nothing" and not reply.header("degraded")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("harness", [FlaskHarness, AsgiHarness, StarletteHarness])
def test_failover_under_load(harness: type[Harness]) -> None:
    """Clients ask while the primary is killed and another is promoted: all are served, each finds its own, and all is well after it."""
    with Watched() as watched:
        site = Site(
            views=[View(path="/", decorators=[limit("1000000/hour")])],
            settings={"store": watched.url},
            clock=SYSTEM,
            concerns=[Mine()],
        )
        stop = threading.Event()
        with harness().build(site) as app:
            clients = [Client(app, number, stop) for number in range(1, 7)]
            for client in clients:
                client.start()
            try:
                poll(lambda: all(client.well > 20 for client in clients))
                old = watched.primary
                old.kill()
                poll(lambda: watched.promoted(old), within=30)
                promoted = time.monotonic()
                before = [client.well for client in clients]

                def well_again(times: int) -> bool:
                    return all(client.well >= known + times for client, known in zip(clients, before, strict=True))

                # On an idle machine it takes less than a second; here others may be at work.
                with Lag() as lag:
                    poll(lambda: well_again(1))
                assert time.monotonic() < promoted + 5 + lag.worst
                poll(lambda: well_again(20))
            finally:
                stop.set()
                for client in clients:
                    client.join()
        assert [[]] * 6 == [client.wrong for client in clients]
