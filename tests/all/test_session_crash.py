"""A server that is killed in the middle of writes, again and again: nothing is half there, and nothing that was acknowledged is lost.

Unless the server itself acknowledges what it has not handed to the kernel: with ``appendfsync everysec`` it does so while the disk is busy.
Then every loss is told of.
"""

import threading
from collections import Counter
from typing import Any, Final

import pytest

from failsoft.clock import SYSTEM
from failsoft.errors import SessionUnavailable
from failsoft.events import Event, SessionGone, SessionRolledBack
from failsoft.runtime import Runtime
from tests.core.sessions.sites import Browser, make_site
from tests.servers import Valkey, poll

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

KILLS: Final = 20
WRITERS: Final = 3
META: Final = {b"@h", b"@c", b"@t", b"@a", b"@v", b"@g"}


class Writer(threading.Thread):
    """Writes two keys at a time that are always equal, and logs browsers in.

    Attributes:
        acknowledged: the last number that it was told is written.
        writes: how often it was told so.
        refused: how often not.
        logins: the browsers that were told that they are logged in, and as whom.
        lost: how often less was there than was acknowledged.
        wrong: what should never have been.
    """

    def __init__(self, app: Runtime, name: str, stop: threading.Event) -> None:
        super().__init__(name=name)
        self._app, self._user, self._over = app, name, stop
        self._browser = Browser(app)
        self.acknowledged = self.writes = self.refused = self.lost = 0
        self.logins: list[tuple[str, Browser]] = []
        self.wrong: list[str] = []
        assert poll(lambda: self._log_in(self._browser, name))

    def _log_in(self, browser: Browser, user: str) -> bool:
        request = browser.request(eager=True)
        try:
            request.view.login(user)
            request.view["a"] = request.view["b"] = 0
        except SessionUnavailable:
            return request.finish(503) == 200
        return request.finish() == 200

    def run(self) -> None:
        number, written = 0, True
        while not self._over.wait(0.001 if written else 0.02):
            number, written = number + 1, False
            try:
                written = self._write(number)
            except Exception as error:
                self.wrong.append(repr(error))
            if number % 4 == 0:
                user, browser = f"{self._user}-{number}", Browser(self._app)
                if self._log_in(browser, user):
                    self.logins.append((user, browser))

    def _write(self, number: int) -> bool:
        """Whether it was told that it is written."""
        request = self._browser.request(eager=True)
        view = request.view
        try:
            found = view["a"], view["b"]
            principal = view.principal
            view["a"] = view["b"] = number
        except SessionUnavailable:
            self.refused += 1
            request.finish(503)
            return False
        if found[0] != found[1]:
            self.wrong.append(f"half a write: {found}")
        self.lost += found[0] < self.acknowledged
        self.acknowledged = found[0]
        if principal is None or principal.subject != self._user:
            self.wrong.append(f"{principal} instead of {self._user}")
        status = request.finish()
        if status == 200:
            self.acknowledged = number
            self.writes += 1
            return True
        self.refused += 1
        if status != 503:
            self.wrong.append(str(status))
        return False


def _broken(server: Valkey) -> list[tuple[bytes, Any]]:
    """The records that are not whole."""
    broken: list[tuple[bytes, Any]] = []
    with server.client() as client:
        keys: Any = client.keys("failsoft:1:sess:*")
        for key in keys:
            with client.pipeline(transaction=True) as pipeline:
                fields, left = pipeline.hgetall(key).pttl(key).execute()
            whole = META | {b"@p", b"a", b"b"} <= fields.keys() and fields[b"a"] == fields[b"b"]
            if not whole or left <= 0:
                broken.append((key, (fields, left)))
        subjects: Any = client.keys("failsoft:1:subj:*")
        broken += [(key, "lives for ever") for key in subjects if client.pttl(key) == -1]
    return broken


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_sigkill_in_the_middle_of_writes(policy: str) -> None:
    """Twenty times, under load: every record is whole, and has what was acknowledged; every login that was acknowledged holds."""
    told: list[Event] = []
    stop = threading.Event()
    with Valkey("--appendonly", "yes", "--appendfsync", policy) as server:
        app = make_site(store=server.url, clock=SYSTEM, deadline=1)
        app.listen(lambda event: told.append(event) if isinstance(event, SessionGone | SessionRolledBack) else None)
        try:
            app.start()
            writers = [Writer(app, f"user{number}", stop) for number in range(WRITERS)]
            with server.client() as client:
                client.set("last", 1)
                client.execute_command("WAITAOF", 1, 0, 10_000)
            for writer in writers:
                writer.start()
            try:
                for _ in range(KILLS):
                    before = [writer.writes for writer in writers]
                    poll(
                        lambda before=before: all(
                            writer.writes >= known + 3 for writer, known in zip(writers, before, strict=True)
                        ),
                        within=30,
                    )
                    server.restart()
                    assert [] == _broken(server)
                before = [writer.writes for writer in writers]
                poll(
                    lambda: all(writer.writes > known for writer, known in zip(writers, before, strict=True)), within=30
                )
            finally:
                stop.set()
                for writer in writers:
                    writer.join()
            assert [[]] * WRITERS == [writer.wrong for writer in writers]
            assert [] == _broken(server)
            logins = [one for writer in writers for one in writer.logins]
            found = []
            for _, browser in logins:
                with browser.request() as view:
                    found.append(None if view.principal is None else view.principal.subject)
            # Who is not who they were must have been told of, and nobody else.
            assert {None} >= {one for (user, _), one in zip(logins, found, strict=True) if one != user}
            lost = [event for event in told if isinstance(event, SessionGone) and event.reason == "lost"]
            rolled_back = Counter(event.subject for event in told if isinstance(event, SessionRolledBack))
            assert found.count(None) == len(lost) == len(told) - rolled_back.total()
            for writer in writers:  # once more where the store went away after it had told, before it could be read
                assert (writer.lost > 0) == (rolled_back[writer.name] > 0)
                assert writer.lost <= rolled_back[writer.name]
            if policy == "always":
                assert [] == told
            refused = sum(writer.refused for writer in writers)
            print(
                f"{policy}: {sum(one.writes for one in writers)} writes, {len(logins)} logins, {refused} refused, lost {told}"
            )
            assert refused > 0
            assert len(logins) > KILLS
        finally:
            app.close()
