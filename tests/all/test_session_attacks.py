"""What somebody tries who wants another's session, in every framework: planted, guessed, forged, swapped and replayed cookies."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Protocol

import pytest

from failsoft.errors import SessionValueError
from failsoft.ratelimit import limit
from failsoft.sessions.ids import HANDLE_LENGTH, SessionId
from failsoft.sessions.live import require_live_session
from failsoft.stores import Store
from failsoft.testing import FaultyStore, ManualClock
from failsoft.testing.contract.session_site import Browser
from failsoft.testing.harness import App, Harness, Reply
from failsoft.testing.site import Answer, Call, View
from tests.all.session_site import HARNESSES, renew, site

NOBODY: Final = {"owner": None, "n": None, "user": None}
SNAPSHOT: Final[Mapping[str, Any]] = {"session_snapshot": 60, "session_snapshot_keys": ["n", "owner", "text"]}
NAMES: Final = ("sessionid", "sessionid-seal", "sessionid-logout")


def _given(call: Call) -> str:
    """What the client sent to be put somewhere, whatever it is."""
    return urlsafe_b64decode(call.header("x-given") or "").decode("utf-8", "surrogatepass")


def _as(call: Call) -> Answer:
    call.session().login(_given(call))
    return Answer()


def _keep(call: Call) -> Answer:
    call.session()["text"] = _given(call)
    return Answer()


def _kept(call: Call) -> Answer:
    principal = call.session().principal
    found = [call.session().get("text"), None if principal is None else principal.subject]
    return Answer(body=json.dumps(found).encode(), content_type="application/json")


def _live(call: Call) -> Answer:
    return Answer(body=str(call.session().principal.subject).encode())


MORE: Final = (
    View(path="/as", handle=_as),
    View(path="/keep", handle=_keep),
    View(path="/kept", handle=_kept),
    View(path="/live", handle=_live, decorators=[require_live_session]),
    View(path="/mine-limited", decorators=[limit("2/minute", by="user", name="mine")]),
)


class Watching:
    """Another store; remembers every word that goes to it."""

    def __init__(self, store: FaultyStore) -> None:
        self._store = store
        self.words: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("flight", "begin", "aflight"):
            return found

        def noted(operations: Sequence[Any]) -> Any:
            for operation in operations:
                self.words += map(str, (*operation.keys, *operation.arguments))
            return found(operations)

        return noted


class Build(Protocol):
    """The site, with these settings."""

    def __call__(self, *views: View, own: Store | None = None, **settings: Any) -> App: ...


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.name)
def harness(request: pytest.FixtureRequest) -> Harness:
    found: Harness = request.param()
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FaultyStore:
    return FaultyStore(clock=clock)


@pytest.fixture
def build(harness: Harness, clock: ManualClock, store: FaultyStore) -> Iterator[Build]:
    with ExitStack() as stack:

        def build(*views: View, own: Store | None = None, **settings: Any) -> App:
            described = site(*MORE, *views, own=own or store, clock=clock, **settings)
            return stack.enter_context(harness.build(described))

        yield build


def _send(browser: Browser, path: str, given: str) -> Reply:
    """GET `path` with `given`, which no header could carry as it is; the jar is kept by hand."""
    text = urlsafe_b64encode(given.encode("utf-8", "surrogatepass")).decode()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.jar.items())
    reply = browser.app.get(path, ("X-Given", text), ("Cookie", cookies or "a=b"))
    _clean(reply)
    for line in reply.lines("Set-Cookie"):
        name, _, value = line.split(";")[0].partition("=")
        browser.jar[name] = value
    return reply


def _clean(reply: Reply) -> None:
    """No header field has what ends one, and no cookie is set but ours."""
    for name, value in reply.headers:
        assert not set("\r\n\0") & {*name, *value}
    assert {line.partition("=")[0] for line in reply.lines("Set-Cookie")} <= set(NAMES)


def _mine(browser: Browser) -> Any:
    reply = browser.get("/mine")
    assert 200 == reply.status
    return reply.json()


def _of(user: str, n: int | None = None) -> dict[str, Any]:
    return {"owner": user, "n": n, "user": user}


def _logged_in(app: App, user: str) -> Browser:
    browser = Browser(app)
    assert 200 == browser.get(f"/login/{user}").status
    return browser


@contextmanager
def _unharmed(*browsers: tuple[Browser, str]) -> Iterator[None]:
    """Whatever happens within, they are logged in before and after."""
    before = [_mine(browser) for browser, _ in browsers]
    assert [user for _, user in browsers] == [found["user"] for found in before]
    yield
    assert before == [_mine(browser) for browser, _ in browsers]


# Fixation


def test_a_planted_session(build: Build, clock: ManualClock) -> None:
    """Who logs in with an id that somebody else knows gets another; the former reads and writes nothing, in its grace or after."""
    mallory = Browser(build())
    mallory.get("/write/1")
    victim = mallory.copy()
    assert 200 == victim.get("/login/victim").status
    assert mallory.cookie != victim.cookie
    with _unharmed((victim, "victim")):
        for path in ("/write/2", "/rotate", "/login/mallory"):
            assert (409, []) == ((reply := mallory.get(path)).status, reply.lines("Set-Cookie"))
        assert NOBODY == _mine(mallory)
        clock.advance(11)
        assert NOBODY == _mine(mallory)
        assert 200 == mallory.get("/write/3").status
        assert {"owner": None, "n": 3, "user": None} == _mine(mallory)
        assert (mallory.cookie or "")[:HANDLE_LENGTH] != (victim.cookie or "")[:HANDLE_LENGTH]


def test_a_planted_login(build: Build) -> None:
    """Who logs in over somebody else's login gets a session of their own, with nothing of the other's."""
    mallory = _logged_in(build(), "mallory")
    mallory.get("/write/1")
    victim = mallory.copy()
    assert 200 == victim.get("/login/victim").status
    assert _of("victim") == _mine(victim)
    with _unharmed((victim, "victim")):
        assert NOBODY == _mine(mallory)
        mallory.get("/write/2")
        mallory.get("/logout")


def test_a_former_id_after_a_rotation(build: Build, harness: Harness, clock: ManualClock) -> None:
    """It leads to the session for requests that were under way, gives them no new id, and is dead when its grace is over.

    Django's `cycle_key` is strict: there the former id leads to nothing at once.
    """
    browser = _logged_in(build(), "ada")
    thief = browser.copy()
    browser.get("/rotate")
    assert _of("ada") == _mine(browser)  # the grace begins when the new id is used
    strict = harness.name.startswith("django")
    reply = thief.get("/write/1")
    assert (409 if strict else 200, []) == (reply.status, reply.lines("Set-Cookie"))
    assert (409, []) == ((reply := thief.get("/rotate")).status, reply.lines("Set-Cookie"))
    assert (NOBODY if strict else _of("ada", 1)) == _mine(thief)
    clock.advance(11)
    with _unharmed((browser, "ada")):
        assert NOBODY == _mine(thief)
        thief.get("/write/2")


def test_a_made_up_id(build: Build) -> None:
    """Neither an id out of nowhere nor a known handle with another secret opens or touches anything, nor is it adopted."""
    app = build()
    victim = _logged_in(app, "victim")
    handle = (victim.cookie or "")[:HANDLE_LENGTH]
    secret = (victim.cookie or "")[HANDLE_LENGTH:]
    other = "A" if secret[0] != "A" else "B"
    with _unharmed((victim, "victim")):
        for planted in ("x" * 59, handle + "x" * 43, handle + other + secret[1:], secret[:HANDLE_LENGTH] + secret):
            mallory = Browser(app, {**victim.jar, "sessionid": planted})
            assert NOBODY == _mine(mallory)
            mallory.get("/logout")
            mallory = Browser(app, {"sessionid": planted})
            assert 200 == mallory.get("/write/1").status
            assert planted != mallory.cookie
            assert handle != (mallory.cookie or "")[:HANDLE_LENGTH]
            assert NOBODY == _mine(Browser(app, {"sessionid": planted}))


def test_an_id_in_the_url(build: Build) -> None:
    """It is no id there, nor in any other field than the cookie's."""
    app = build()
    victim = _logged_in(app, "victim")
    cookie = victim.cookie or ""
    fields = [
        ("sessionid", cookie),
        ("X-Session-Id", cookie),
        ("Authorization", f"Bearer {cookie}"),
        ("Cookie", cookie),
    ]
    reply = app.request("GET", f"/mine?sessionid={cookie}&session={cookie}", headers=fields)
    assert (200, NOBODY, []) == (reply.status, reply.json(), reply.lines("Set-Cookie"))
    reply = app.get(f"/mine;sessionid={cookie}")
    assert 404 == reply.status


def test_the_store_learns_no_secret(build: Build, store: FaultyStore) -> None:
    """It is sent and compares digests, never what opens a session, so how long it takes tells nothing about that either."""
    watching: Any = Watching(store)
    app = build(own=watching, **SNAPSHOT)
    browser = _logged_in(app, "ada")
    ids = [browser.cookie or ""]
    for path in ("/write/1", "/rotate", "/mine", "/live", "/write/2"):
        assert 200 == browser.get(path).status
        ids.append(browser.cookie or "")
    assert app.runtime.sessions is not None
    app.runtime.sessions.subjects.list("ada")
    browser.get("/logout")
    words = "\n".join(watching.words)
    assert 2 == len(set(ids))
    for text in set(ids):
        identity = SessionId.parse(text)
        assert identity is not None
        assert (True, True) == (identity.handle in words, identity.digest in words)
        assert identity.secret not in words
    for seal in watching.words:
        assert browser.jar.get("sessionid-seal", "never") not in seal


def test_an_end_from_afar(build: Build, store: FaultyStore, clock: ManualClock) -> None:
    """Whoever planted the id that a victim had before the login can end nothing with it later, by a ticket either."""
    app = build()
    mallory = Browser(app)
    mallory.get("/write/1")
    victim = mallory.copy()
    victim.get("/login/victim")
    clock.advance(11)
    with _unharmed((victim, "victim")):
        assert 200 == mallory.copy().get("/logout").status
        with store.away():
            assert 202 == mallory.get("/logout").status
        assert ["sessionid-logout"] == list(mallory.jar)
        assert NOBODY == _mine(mallory)


# The companion


def test_a_companion_of_another(build: Build, store: FaultyStore) -> None:
    """Put beside another session it is nothing: not its user, not its limits, and no snapshot."""
    app = build(**SNAPSHOT)
    victim, mallory = _logged_in(app, "victim"), _logged_in(app, "mallory")
    seals = {name: browser.jar["sessionid-seal"] for name, browser in (("victim", victim), ("mallory", mallory))}
    swapped = Browser(app, {**mallory.jar, "sessionid-seal": seals["victim"]})
    both = f"sessionid={mallory.cookie}; sessionid-seal={seals['victim']}; sessionid-seal={seals['mallory']}"
    with _unharmed((victim, "victim")):
        assert "mallory" == _mine(swapped.copy())["user"]
        assert [200, 200, 429] == [swapped.copy().get("/mine-limited").status for _ in range(3)]
        assert 200 == victim.get("/mine-limited").status
        with store.away():
            assert 503 == swapped.get("/mine").status
            assert 503 == Browser(app, {"sessionid": "x" * 59, "sessionid-seal": seals["victim"]}).get("/mine").status
            assert NOBODY == _mine(Browser(app, {"sessionid-seal": seals["victim"]}))
            assert "mallory" == app.get("/mine", ("Cookie", both)).json()["user"]
            assert "victim" == _mine(victim)["user"]


def test_a_companion_after_the_logout(build: Build, store: FaultyStore, clock: ManualClock) -> None:
    """A copy of it is good while the store is away, as long as the setting says, and never where the session itself is needed."""
    app = build(**SNAPSHOT)
    browser = _logged_in(app, "ada")
    clock.advance(10)
    thief = browser.copy()
    assert 200 == browser.get("/logout").status
    assert NOBODY == _mine(thief.copy())
    with store.away():
        for _ in range(5):
            reply = thief.get("/mine")
            assert (200, _of("ada"), []) == (reply.status, reply.json(), reply.lines("Set-Cookie"))
            assert (503, 503) == (thief.get("/write/1").status, thief.get("/live").status)
            clock.advance(10)
        clock.advance(1)  # 61 s old
        assert 503 == thief.get("/mine").status
    assert NOBODY == _mine(thief)


def test_a_companion_after_a_revocation(build: Build, store: FaultyStore, clock: ManualClock) -> None:
    """Likewise; and the session stays revoked when the store is back."""
    app = build(**SNAPSHOT)
    browser = _logged_in(app, "ada")
    assert app.runtime.sessions is not None
    app.runtime.sessions.subjects.revoke_all("ada")
    with store.away():
        assert "ada" == _mine(browser)["user"]
        clock.advance(61)
        assert 503 == browser.get("/mine").status
    assert NOBODY == _mine(browser)
    assert (200, None) == (browser.get("/write/1").status, _mine(browser)["user"])


def _bent(text: str) -> Iterator[str]:
    """What could be made of a sealed text without its key."""
    # Of the last character not all bits count. That no bit of the others may change is asked of the seal itself.
    for at in range(0, len(text) - 1, max(1, len(text) // 8)):
        yield text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        yield text[:at]
        yield text[:at] + text[at + 1 :]
    yield from (
        text + "A",
        text + "=",
        text + "%3D",
        f'"{text}',
        text.swapcase(),
        text[::-1],
        text * 2,
        "",
        "=",
        "\xff",
    )
    yield from ("A" * 4000, "A" * 5000, urlsafe_b64encode(b"\x01" + b"\0" * 60).decode())


def test_forged_companions(build: Build, store: FaultyStore) -> None:
    """No change to it leaves anything that stands in for the session, and none does harm."""
    app = build(**SNAPSHOT)
    browser = _logged_in(app, "ada")
    seal, forger = browser.jar["sessionid-seal"], _logged_in(build(**SNAPSHOT, secret="x" * 40), "ada")
    forged = [*_bent(seal), forger.jar["sessionid-seal"]]
    assert seal not in forged
    for text in forged:
        assert "ada" == _mine(Browser(app, {**browser.jar, "sessionid-seal": text}))["user"]
    with store.away():
        statuses = {text: Browser(app, {**browser.jar, "sessionid-seal": text}).get("/mine").status for text in forged}
        assert {503} == set(statuses.values())
        assert 200 == browser.get("/mine").status


# The ticket


def _ticket(app: App, store: FaultyStore, user: str, cookie: str | None = None) -> tuple[str, Browser]:
    """A ticket for a session of `user`, or for what `cookie` says is one; and the browser before the logout."""
    browser = _logged_in(app, user)
    if cookie is not None:
        browser.jar = {"sessionid": cookie}
    before = browser.copy()
    with store.away():
        reply = browser.get("/logout")
    assert 202 == reply.status
    return browser.jar["sessionid-logout"], before


def test_a_ticket_for_anothers_session(build: Build, store: FaultyStore) -> None:
    """Whoever knows a handle gets a ticket, and it ends nothing; whoever has a session can end that one alone."""
    app = build()
    victim = _logged_in(app, "victim")
    handle = (victim.cookie or "")[:HANDLE_LENGTH]
    with _unharmed((victim, "victim")):
        forged, _ = _ticket(app, store, "mallory", handle + "x" * 43)
        own, former = _ticket(app, store, "mallory")
        for ticket in (forged, own, forged):
            Browser(app, {"sessionid-logout": ticket}).get("/mine")
            Browser(app, {**victim.jar, "sessionid-logout": ticket}).get("/mine")
        assert NOBODY == _mine(former)


def test_a_ticket_again(build: Build, store: FaultyStore) -> None:
    """Replayed after its user has logged in again it ends nothing more."""
    app = build()
    ticket, _ = _ticket(app, store, "ada")
    assert NOBODY == _mine(Browser(app, {"sessionid-logout": ticket}))
    again = _logged_in(app, "ada")
    with _unharmed((again, "ada")):
        for _ in range(3):
            assert 200 == Browser(app, {**again.jar, "sessionid-logout": ticket}).get("/mine").status


def test_forged_tickets(build: Build, store: FaultyStore) -> None:
    """No change to it, nor a companion in its place, ends a session; nor is it a companion."""
    app = build(**SNAPSHOT)
    ticket, browser = _ticket(app, store, "ada")
    with _unharmed((browser, "ada")):
        for text in [*_bent(ticket), browser.jar["sessionid-seal"]]:
            assert text != ticket
            assert "ada" == _mine(Browser(app, {**browser.jar, "sessionid-logout": text}))["user"]
        with store.away():
            assert 503 == Browser(app, {**browser.jar, "sessionid-seal": ticket}).get("/mine").status
    assert NOBODY == _mine(Browser(app, {**browser.jar, "sessionid-logout": ticket}))


# Many, large and odd


def test_many_cookies_of_one_name(build: Build) -> None:
    """What is no id among them is passed over; far too many are none. Nobody gets an error."""
    app = build()
    victim = _logged_in(app, "victim")
    with _unharmed((victim, "victim")):
        valid = f"sessionid={victim.cookie}"
        for number, user in ((1, "victim"), (3, "victim"), (4, None), (500, None)):
            reply = app.get("/mine", ("Cookie", "; ".join(["sessionid=planted"] * number + [valid])))
            assert (200, user) == (reply.status, reply.json()["user"])
        header = "; ".join(f"{name}={'x' * 59}" for name in NAMES for _ in range(300))
        assert (200, NOBODY) == ((reply := app.get("/mine", ("Cookie", header))).status, reply.json())
        for size in (4096, 70_000):
            header = "; ".join(f"{name}={'y' * size}" for name in NAMES)
            assert (200, NOBODY) == ((reply := app.get("/mine", ("Cookie", header))).status, reply.json())
        for text in ("\x00", "\x7f", "é", "a,b", "a b", "\\", '"' * 59, "-_" * 29 + "-", "../" * 19 + "xx", "{" * 59):
            assert (200, NOBODY) == ((reply := app.get("/mine", ("Cookie", f"sessionid={text}"))).status, reply.json())


EVIL: Final = "x\r\nSet-Cookie: evil=1; Path=/\r\n\r\n<script>\0; sessionid=planted; Max-Age=0"


def test_values_that_look_like_headers(build: Build, store: FaultyStore) -> None:
    """Neither what is stored nor who is logged in gets into a header, from the store or from a snapshot."""
    app = build(**SNAPSHOT)
    browser = Browser(app)
    assert 200 == _send(browser, "/keep", EVIL).status
    assert 200 == _send(browser, "/as", EVIL).status
    assert set(NAMES[:2]) == set(browser.jar)
    for _ in range(2):
        reply = browser.get("/kept")
        _clean(reply)
        assert (200, [EVIL, EVIL]) == (reply.status, reply.json())
    with store.away():
        reply = browser.get("/kept")
        _clean(reply)
        assert (200, [EVIL, EVIL]) == (reply.status, reply.json())
        reply = browser.get("/write/1")
        _clean(reply)
        assert 503 == reply.status
        assert b"evil" not in reply.body


SUBJECTS: Final = (
    "a\nb",
    "a\r\nb",
    "a",
    "a ",
    "A",
    "{a}",
    "}a{",
    "{",
    "a:b",
    "*",
    "a\0",
    "ü",
    "u\u0308",
    "ユーザー",
    "😀",
    "../a",
    "%61",
    "$(a)",
    "x" * 255,
    "x" * 254 + "y",
)


def test_odd_subjects(build: Build, store: FaultyStore) -> None:
    """Each is a user of their own, whatever it looks like: known, listed, limited and revoked alone."""
    app = build(**SNAPSHOT)
    assert app.runtime.sessions is not None
    subjects = app.runtime.sessions.subjects
    browsers: dict[str, Browser] = {}
    for subject in SUBJECTS:
        browsers[subject] = Browser(app)
        assert 200 == _send(browsers[subject], "/as", subject).status
    for subject, browser in browsers.items():
        assert subject == browser.get("/kept").json()[1]
        assert [(browser.cookie or "")[:HANDLE_LENGTH]] == [one.handle for one in subjects.list(subject)]
        assert [200, 200, 429] == [browser.get("/mine-limited").status for _ in range(3)]
    keys = [key for key in store.keys if ":subj:" in key]
    assert len(SUBJECTS) == len(keys)
    assert all(key.isascii() and key.isprintable() and key.count("{") == key.count("}") == 1 for key in keys)
    for number, subject in enumerate(SUBJECTS):
        assert 1 == subjects.revoke_all(subject)
        left = [one for one in SUBJECTS[number:] if browsers[one].get("/kept").json()[1] == one]
        assert list(SUBJECTS[number + 1 :]) == left


def test_a_subject_that_is_no_text(build: Build) -> None:
    """Half a character can be written nowhere: it is refused where it is said, and nobody is logged in."""
    browser = Browser(build())
    reply = _send(browser, "/as", "a\ud800")
    assert (500, {}) == (reply.status, browser.jar)
    assert reply.raised is None or isinstance(reply.raised, SessionValueError)


def test_a_handle_is_no_key(build: Build) -> None:
    """Who knows the handle of another's session cannot revoke it, and nothing that is no handle leads anywhere."""
    app = build()
    victim, mallory = _logged_in(app, "victim"), _logged_in(app, "mallory")
    assert app.runtime.sessions is not None
    subjects = app.runtime.sessions.subjects
    handle = (victim.cookie or "")[:HANDLE_LENGTH]
    odd = [
        "",
        "*",
        handle + "}",
        "{" + handle,
        handle[:-1],
        handle + "\n",
        f"{handle[:-1]}*",
        "x" * 16,
        victim.cookie or "",
    ]
    with _unharmed((victim, "victim"), (mallory, "mallory")):
        assert [False] * 10 == [subjects.revoke("mallory", one) for one in (handle, *odd)]
        assert [None] * 9 == [subjects.look(one) for one in odd]


# An outage is no way in


def _writes() -> list[tuple[str, Callable[[Any], None]]]:
    def nested(session: Any) -> None:
        session.setdefault("list", []).append(1)

    def quietly(session: Any) -> None:
        try:
            session["n"] = 1
        except Exception:
            session.get("n")

    return [
        ("set", lambda session: session.__setitem__("n", 1)),
        ("update", lambda session: session.update({"n": 1})),
        ("nested", nested),
        ("login", lambda session: session.login("mallory")),
        ("rotate", renew),
        ("quietly", quietly),
    ]


@pytest.mark.parametrize("cookie", [True, False], ids=["cookie", "none"])
def test_an_outage_that_finds_nothing_writes_nothing(build: Build, store: FaultyStore, cookie: bool) -> None:
    """With ``session_on_outage="empty"`` no write is taken, also if the store comes back in the middle of the request."""
    writes, back = dict(_writes()), list[Any]()

    def write(call: Call) -> Answer:
        session = call.session()
        assert None is session.get("owner")
        for one in back:
            one.close()
        writes[call.params["how"]](session)
        return Answer(body=b"written")

    if not cookie:
        del writes["rotate"]  # there is nothing to rotate
    app = build(View(path="/how/{how}", handle=write), session_on_outage="empty")
    browser = _logged_in(app, "ada") if cookie else Browser(app)
    before = dict(browser.jar)
    for how in writes:
        with store.away():
            reply = browser.get(f"/how/{how}")
            if how != "quietly":
                assert 503 == reply.status, how
            assert ([], before) == (reply.lines("Set-Cookie"), browser.jar)
        if cookie:  # without one, nothing is asked before the write, and then the store is there
            with ExitStack() as away:
                away.enter_context(store.away())
                back[:] = [away.pop_all()]
                reply = browser.get(f"/how/{how}")
                back.clear()
                if how != "quietly":
                    assert 503 == reply.status, how
                assert ([], before) == (reply.lines("Set-Cookie"), browser.jar)
    found = _mine(browser)
    assert (_of("ada") if cookie else NOBODY) == found
