"""The demonstration: three applications, one budget, then one session, and a store that dies and comes back.

python examples/demo.py          tells the story and ends; exit status 0 only if all of it was observed
python examples/demo.py serve    leaves the applications running until Ctrl-C or SIGTERM

Either signal, or a terminal that is closed (SIGHUP), ends the applications and the store with it, whenever it comes.
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from demo_worker import FIELD, PROGRAM

from failsoft.stores.embedded import attach, outage

HERE = Path(__file__).resolve().parent
WORKERS = 2
HELLO = 12
WORK = 60
PATIENCE = 20.0
AT_ONCE = 4
PROMISED, BOUND = 1.0, 5.0
"""Seconds until the store is used again: what is promised, and what is still taken for it where the machine has other work, too."""
WHOLE, WHOLE_BOUND = 30.0, 90.0
"""The same for all of the story."""
DEADLINE, LATE = 1.0, 1.0
"""Seconds that a request may wait for a store, and that a busy machine may take for the rest. The default of the former is 0.1."""


class NotObserved(Exception):
    """The story would not be true."""


def expect(condition: bool, claim: str) -> None:
    if not condition:
        raise NotObserved(claim)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    seconds: float
    body: bytes = b""
    cookies: Sequence[str] = ()

    @property
    def degraded(self) -> str | None:
        return self.headers.get("degraded")

    @property
    def worker(self) -> str:
        """The process that gave it."""
        return self.headers[FIELD.lower()]


@dataclass(frozen=True)
class Application:
    name: str
    port: int
    workers: frozenset[str] = frozenset()

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def send(self, method: str, path: str, cookies: str = "") -> Answer:
        """One request on a connection of its own, so that each worker gets its share."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            began = time.perf_counter()
            connection.request(method, path, headers={"Cookie": cookies} if cookies else {})
            response = connection.getresponse()
            body = response.read()
            seconds = time.perf_counter() - began
            fields = {k.lower(): v for k, v in response.getheaders()}
            return Answer(response.status, fields, seconds, body, response.headers.get_all("set-cookie") or ())
        finally:
            connection.close()


class Browser:
    """One cookie jar for all applications."""

    def __init__(self) -> None:
        self.jar: dict[str, str] = {}

    def send(self, application: Application, method: str, path: str) -> Answer:
        answer = application.send(method, path, "; ".join(f"{name}={value}" for name, value in self.jar.items()))
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value
        return answer

    def user(self, application: Application, place: str) -> tuple[str | None, Answer]:
        answer = self.send(application, "GET", f"/{place}/me")
        expect(answer.status == 200, f"{application.name} shows who is logged in: {answer.status}")
        return json.loads(answer.body)["user"], answer


def free_ports(number: int) -> list[int]:
    """Different ones: none is given back before all are known."""
    with contextlib.ExitStack() as probes:
        ports = []
        for _ in range(number):
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


LIMITED = ("flask_app:app", "django_app:application", "fastapi_app:app")
SHARING = ("sessions_flask:app", "sessions_django:application", "sessions_fastapi:app")


def commands(ports: Sequence[int]) -> dict[str, list[str]]:
    # Preloaded: the workers share the import of the application, which takes longer than all else.
    gunicorn = [sys.executable, "-m", "gunicorn", "--preload", "--workers", str(WORKERS), "--log-level", "warning"]
    flask, django, fastapi = map(str, ports)
    return {
        "Flask, gunicorn": [*gunicorn, "--bind", f"127.0.0.1:{flask}", "demo_worker:wsgi()"],
        "Django, gunicorn": [*gunicorn, "--bind", f"127.0.0.1:{django}", "demo_worker:wsgi()"],
        "FastAPI, uvicorn": [
            *(sys.executable, "-m", "uvicorn", "--factory", "demo_worker:asgi", "--port", fastapi),
            *("--workers", str(WORKERS)),
            *("--log-level", "warning", "--no-proxy-headers"),
        ],
    }


@contextlib.contextmanager
def running(store: str, log: Path, programs: Sequence[str] = LIMITED) -> Iterator[list[Application]]:
    """The three applications on one store; they are ended at the end."""
    ports = free_ports(3)
    environment = os.environ | {
        "FAILSOFT_STORE": store,
        "FAILSOFT_PREFIX": "demo",
        "FAILSOFT_WORKERS": str(WORKERS),
        # The three stand for three machines; a private server shares sessions on one machine only.
        "FAILSOFT_REPLICAS": "3" if programs is LIMITED else "1",
        # The story is about counting, not about time: where a busy machine takes longer for a flight, that is no outage.
        "FAILSOFT_DEADLINE": f"{DEADLINE:g}",
        "APP_SECRET": secrets.token_urlsafe(32),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as output:
        try:
            for program, command in zip(programs, commands(ports).values(), strict=True):
                processes.append(  # one by one: those that started are ended whatever comes
                    subprocess.Popen(
                        command,
                        cwd=HERE,
                        env=environment | {PROGRAM: program},
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )
            applications = [
                wait_for(Application(name, port), process)
                for name, port, process in zip(commands(ports), ports, processes, strict=True)
            ]
            yield applications
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def wait_for(application: Application, process: "subprocess.Popen[bytes]") -> Application:
    """The application, when all of its workers have answered: they are known from then on."""
    until = time.monotonic() + PATIENCE
    workers: set[str] = set()
    while len(workers) < WORKERS:
        expect(process.poll() is None, f"{application.name} runs")
        expect(time.monotonic() < until, f"{WORKERS} workers of {application.name} answer within {PATIENCE:.0f} s")
        # A path that is no view: only the limit of 1000 a minute counts it.
        with contextlib.suppress(OSError):
            workers.update(answer.worker for answer in at_once(application, "/up"))
        time.sleep(0.05)
    return replace(application, workers=frozenset(workers))


def at_once(application: Application, path: str) -> list[Answer]:
    """Several requests on connections of their own: one after the other, the same worker might take them all."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(application.get, [path] * AT_ONCE))


def until_healthy(applications: Sequence[Application]) -> None:
    """Wait until each worker of each application has answered without being degraded."""
    until = time.monotonic() + PATIENCE
    waiting = {application: set(application.workers) for application in applications}
    while waiting:
        for application, workers in list(waiting.items()):
            workers -= {answer.worker for answer in at_once(application, "/up") if answer.degraded is None}
            if not workers:
                del waiting[application]
            late = f"process {', '.join(sorted(workers))} of {application.name} uses the store"
            expect(not workers or time.monotonic() < until, f"{late} within {PATIENCE:.0f} s")
        time.sleep(0.02)


def one_budget(applications: Sequence[Application]) -> None:
    print(f"\n1. One budget: {HELLO} requests a minute, counted over all three")
    for turn in range(HELLO):
        application = applications[turn % 3]
        answer = application.get("/")
        expect(answer.status == 200, f"request {turn + 1} of {HELLO} is admitted")
        if turn in (0, 1, 2, HELLO - 1):
            print(f"   {application.name:17} {answer.status}  RateLimit: {answer.headers['ratelimit']}")
    for application in applications:
        answer = application.get("/")
        expect(answer.status == 429, f"{application.name} refuses what is beyond the budget")
        expect(int(answer.headers["retry-after"]) > 0, "a refusal says when to come back")
        print(f"   {application.name:17} {answer.status}  Retry-After: {answer.headers['retry-after']}")


def without_store(applications: Sequence[Application]) -> None:
    share = WORK // (WORKERS * 3)
    print(f"\n2. The store is killed. {WORK} a minute, {WORKERS * 3} processes: each admits {share} by itself")
    began = time.perf_counter()
    answers = [application.get("/work") for _ in range(40) for application in applications]
    took = time.perf_counter() - began
    statuses = Counter(answer.status for answer in answers)
    reasons = Counter(answer.degraded for answer in answers)
    slowest = max(answer.seconds for answer in answers)
    print(
        f"   {len(answers)} requests in {took:.2f} s, {len(answers) / took:.0f} a second; the slowest took {slowest * 1000:.0f} ms\n"
        f"   A request may wait for a store that hangs: {DEADLINE:g} s here, for a busy machine's sake, by default 0.1 s. "
        f"An answer that takes {DEADLINE + LATE:g} s ends this story"
    )
    admitted = Counter(answer.worker for answer in answers if answer.status == 200)
    print(
        f"   {statuses[200]} admitted by {len(admitted)} processes, at most {max(admitted.values(), default=0)} by one; "
        f"{statuses[429]} refused; no other answer"
    )
    print(f"   Degraded: {', '.join(f'{reason} ({count})' for reason, count in reasons.most_common())}")
    expect(set(statuses) == {200, 429}, f"every request is admitted or refused, none fails: {dict(statuses)}")
    expect(0 < statuses[200] <= WORK, f"all processes together admit at most {WORK}: {statuses[200]}")
    expect(max(admitted.values()) <= share, f"each process admits at most {share}: {dict(admitted)}")
    expect(None not in reasons, "every answer says that it was degraded")
    expect(slowest < DEADLINE + LATE, f"no answer takes longer than {DEADLINE + LATE:g} s: {slowest:.2f} s")


def in_time(what: str, took: float, promised: float, bound: float) -> str:
    """What may be said of how long it took. Only the bound ends the story: promises are for a machine that has nothing else to do."""
    expect(took < bound, f"{what} within {bound:g} s: {took:.2f} s")
    if took <= promised:
        return f"as promised, within {promised:g} s"
    return f"later than promised, {promised:g} s; up to {bound:g} s are let pass, for the machine may be busy"


def recovery(applications: Sequence[Application], store: str) -> None:
    with attach(store):  # which waits until the server answers
        returned = time.monotonic()
    until_healthy(applications)
    took = time.monotonic() - returned
    print("\n3. The store is back")
    print(
        f"   each of the {WORKERS * 3} processes counts in it again {took:.2f} s after it answers, "
        f"{in_time('recovered', took, PROMISED, BOUND)}"
    )
    answer = applications[0].get("/work")
    expect(answer.degraded is None, "answers are no longer degraded")
    expect(answer.status == 200, "the budget of the new store is untouched")
    print(f"   {applications[0].name:17} {answer.status}  RateLimit: {answer.headers['ratelimit']}")


PLACES = ("flask", "django", "api")
ADA = "1"  # by her primary key in Django, which has the users


def one_session(applications: Sequence[Application], browser: Browser) -> None:
    print("\n4. One session: log in on Flask")
    answer = browser.send(applications[0], "POST", f"/flask/login/{ADA}")
    expect(answer.status == 200, "the login is answered")
    for application, place in zip(applications, PLACES, strict=True):
        user, answer = browser.user(application, place)
        expect(user == ADA, f"{application.name} knows who it is")
        print(f"   {application.name:17} {answer.status}  user {user} is logged in")


def session_without_store(applications: Sequence[Application], browser: Browser) -> None:
    print("\n5. The store is killed")
    for application, place in zip(applications, PLACES, strict=True):
        user, answer = browser.user(application, place)
        expect(user == ADA, f"{application.name} still knows who it is, from the sealed cookie")
        expect("session" in (answer.degraded or ""), "the answer says that the session was degraded")
        refused = browser.send(application, "POST", f"/{place}/set/lost/1")
        expect(refused.status == 503, "a write is refused before anybody is told that it was made")
        print(f"   {application.name:17} {answer.status}  still user {user}, Degraded: {answer.degraded}")
        print(f"   {'':17} {refused.status}  for a write, Retry-After: {refused.headers['retry-after']}")


def session_again(applications: Sequence[Application], browser: Browser) -> None:
    until_healthy(applications)
    print("\n6. The store is back, with what it had")
    for application, place in zip(applications, PLACES, strict=True):
        written = browser.send(application, "POST", f"/{place}/set/from_{place}/1")
        expect(written.status == 200, f"{application.name} writes again: {written.status}")
        print(f"   {application.name:17} {written.status}  for a write")
    user, answer = browser.user(applications[2], "api")
    keys = json.loads(answer.body)["keys"]
    expect((user, len(keys)) == (ADA, 3), f"the same user, and all three writes: {user}, {keys}")
    print(f"   {applications[2].name:17} {answer.status}  user {user}, {', '.join(keys)}")


def story(applications: Sequence[Application], store: str) -> None:
    until_healthy(applications)
    one_budget(applications)
    with outage(store):
        without_store(applications)
    recovery(applications, store)


def second_story(applications: Sequence[Application], store: str) -> None:
    until_healthy(applications)
    browser = Browser()
    one_session(applications, browser)
    with outage(store):
        session_without_store(applications, browser)
    session_again(applications, browser)


def tell(applications: Sequence[Application]) -> None:
    for application in applications:
        print(f"{application.name}: {WORKERS} workers on http://127.0.0.1:{application.port}/")


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends the story. SIGHUP, which a terminal sends that is closed, is not everywhere."""


def interrupt(number: int, frame: object) -> None:
    """Once: make passes on a SIGTERM that the terminal's whole group may have had, and the second would stop the cleaning up."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    if arguments not in ([], ["serve"]):
        print(__doc__, file=sys.stderr)
        return 2
    for each in SIGNALS:
        if each is signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN:  # nohup has a closed terminal ignored
            signal.signal(each, interrupt)
    try:
        return run(serving=arguments == ["serve"])
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("\nInterrupted: the applications and the store are ended.", flush=True)
        return 0 if arguments == ["serve"] else 130


def run(*, serving: bool) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fs-demo-") as directory:
        log = Path(directory, "log")
        store = f"embedded://{directory}/store"
        try:
            with attach(store) as attachment:
                print(f"Valkey: a private one, process {attachment.pid}")
                with running(store, log) as applications:
                    tell(applications)
                    if serving:
                        print(f"Try / and /work. The store: {attachment.url}\nCtrl-C ends it.", flush=True)
                        while True:
                            time.sleep(1)  # a signal between a look and an endless wait would be overheard
                    story(applications, store)
            kept = f"embedded://{directory}/kept?keep=yes"
            with attach(kept) as attachment:
                print(f"\nAnother Valkey, which keeps what it has, process {attachment.pid}")
                with running(kept, log, SHARING) as applications:
                    tell(applications)
                    second_story(applications, kept)
            took = time.monotonic() - began
            print(f"\nAll of this was observed, in {took:.0f} s: {in_time('told', took, WHOLE, WHOLE_BOUND)}.")
        except NotObserved as claim:
            print(f"\nNOT OBSERVED: {claim}", file=sys.stderr)
            print(log.read_text(errors="replace")[-3000:], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
