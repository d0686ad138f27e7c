"""What Django's settings say of sessions, where failsoft's say otherwise, and what the system checks make of it."""

from typing import Any

import pytest
from django.contrib.sessions.backends.file import SessionStore as FileStore
from django.contrib.sessions.middleware import SessionMiddleware
from django.test import override_settings

from failsoft.settings import Settings, SettingsError
from failsoft_django.checks import check_sessions, check_settings, check_sharing
from failsoft_django.runtime import get_runtime, read_settings
from failsoft_django.sessions import SessionStore
from tests.django.harness import configure

pytestmark = pytest.mark.broad

configure()

OURS = "failsoft_django.FailsoftMiddleware"
NEW = "failsoft_django.SessionMiddleware"
STOCK = "django.contrib.sessions.middleware.SessionMiddleware"
SECRET = "a secret of the tests, of forty characters"
DAY = 86_400.0


def loaded(django: Any = None, **failsoft: Any) -> Settings:
    """What comes of Django's and failsoft's settings."""
    with override_settings(
        **{"SESSION_ENGINE": "failsoft_django.sessions", "SECRET_KEY": SECRET, "FAILSOFT": failsoft, **(django or {})}
    ):
        return read_settings()[0]


def problems(django: Any = None, **failsoft: Any) -> list[tuple[str, str | None]]:
    """The ids and hints of the mistakes in them."""
    with pytest.raises(SettingsError) as caught:
        loaded(django, **failsoft)
    return [(one.id, one.hint) for one in caught.value.problems]


class Mine(SessionStore):
    """A store that is made from ours."""


def test_on_by_itself():
    """The engine turns sessions on, with Django's cookie, secret and clocks."""
    found = loaded({"SECRET_KEY_FALLBACKS": [SECRET[::-1]]})
    assert (True, "sessionid", SECRET, (SECRET[::-1],)) == (
        found.sessions,
        found.session_cookie,
        found.secret,
        found.secret_fallbacks,
    )
    assert (14 * DAY, 14 * DAY) == (found.session_idle, found.session_absolute)
    assert (False, True, None, "/", "lax") == (
        found.cookie_secure,
        found.cookie_httponly,
        found.cookie_domain,
        found.cookie_path,
        found.cookie_samesite,
    )


def test_off_with_another_engine():
    """Any other engine does not, and Django's settings mean nothing to failsoft then."""
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.file", FAILSOFT={}):
        assert (False, "session") == (read_settings()[0].sessions, read_settings()[0].session_cookie)


@pytest.mark.parametrize(("engine", "expected"), [("nowhere.at.all", False), ("failsoft_django.sessions", True)])
def test_engines(engine, expected):
    """An engine is ours by its name; one that cannot be imported is Django's to complain of."""
    assert expected == loaded({"SESSION_ENGINE": engine}).sessions


def test_engine_made_from_ours(monkeypatch):
    """A module whose ``SessionStore`` is made from ours is one of ours."""
    monkeypatch.setitem(globals(), "SessionStore", Mine)
    assert loaded({"SESSION_ENGINE": __name__}).sessions
    monkeypatch.setitem(globals(), "SessionStore", FileStore)
    assert not loaded({"SESSION_ENGINE": __name__}).sessions


@pytest.mark.parametrize(
    ("django", "idle", "absolute", "touch"),
    [
        ({"SESSION_COOKIE_AGE": 3600}, 3600.0, 3600.0, 60.0),
        ({"SESSION_COOKIE_AGE": 60 * DAY}, 14 * DAY, 60 * DAY, 60.0),
        ({"SESSION_COOKIE_AGE": 10}, 60.0, 60.0, 30.0),
        ({"SESSION_COOKIE_AGE": 4000 * DAY}, 14 * DAY, 400 * DAY, 60.0),
        ({"SESSION_COOKIE_AGE": 3600, "SESSION_SAVE_EVERY_REQUEST": True}, 3600.0, 30 * DAY, 60.0),
        ({"SESSION_COOKIE_AGE": 60 * DAY, "SESSION_SAVE_EVERY_REQUEST": True}, 60 * DAY, 60 * DAY, 60.0),
    ],
)
def test_clocks(django, idle, absolute, touch):
    """``SESSION_COOKIE_AGE`` is how long a session lives at most; where Django saves at every request, how long unseen."""
    found = loaded(django)
    assert (idle, absolute, touch) == (found.session_idle, found.session_absolute, found.session_touch)


def test_failsoft_comes_first(monkeypatch):
    """What failsoft's settings say counts, wherever they say it."""
    monkeypatch.setenv("FAILSOFT_SESSION_IDLE", "1h")
    found = loaded(session_absolute="1d", secret=SECRET * 2)
    assert (3600.0, DAY, SECRET * 2) == (found.session_idle, found.session_absolute, found.secret)


# Disagreements


@pytest.mark.parametrize(
    ("django", "failsoft", "hint"),
    [
        ({"SESSION_COOKIE_SECURE": True}, {}, "write SESSION_COOKIE_NAME = '__Host-sessionid'"),
        ({"SESSION_COOKIE_NAME": "__Host-sessionid"}, {}, "write SESSION_COOKIE_NAME = 'sessionid'"),
        ({}, {"session_cookie": "other"}, "write SESSION_COOKIE_NAME = 'other'"),
        (
            {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_NAME": "__Host-session", "SESSION_COOKIE_PATH": "/app"},
            {},
            "write SESSION_COOKIE_NAME = 'session'",
        ),
    ],
)
def test_names_that_disagree(django, failsoft, hint):
    """One cookie has one name; the mistake says which."""
    assert [("failsoft.E905", hint)] == problems(django, **failsoft)


@pytest.mark.parametrize(
    ("failsoft", "hint"),
    [
        ({"cookie_httponly": False}, "write SESSION_COOKIE_HTTPONLY = False, or leave cookie_httponly out"),
        ({"cookie_domain": "example.com"}, "write SESSION_COOKIE_DOMAIN = 'example.com', or leave cookie_domain out"),
        ({"cookie_path": "/app"}, "write SESSION_COOKIE_PATH = '/app', or leave cookie_path out"),
        ({"cookie_samesite": "strict"}, "write SESSION_COOKIE_SAMESITE = 'Strict', or leave cookie_samesite out"),
    ],
)
def test_attributes_that_disagree(failsoft, hint):
    """Likewise its attributes."""
    assert [("failsoft.E906", hint)] == problems(**failsoft)


def test_what_agrees():
    """What is said twice, and the same, is no mistake."""
    django = {
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_NAME": "__Host-session",
        "SESSION_COOKIE_SAMESITE": "Strict",
    }
    found = loaded(django, session_cookie="session", cookie_secure=True, cookie_samesite="strict")
    assert "session" == found.session_cookie
    domain = {"SESSION_COOKIE_DOMAIN": ".Example.com", "SESSION_COOKIE_SAMESITE": False}
    assert "example.com" == loaded(domain, cookie_domain="example.com", cookie_samesite="strict").cookie_domain


def test_turned_off():
    """Our engine without sessions cannot be."""
    assert ["failsoft.E907"] == [one for one, _ in problems(sessions=False)]


@pytest.mark.parametrize("age", ["2w", "1209600", None, True])
def test_an_age_that_is_no_number(age: Any):
    """SESSION_COOKIE_AGE from an environment is text: an error that names it, and says what to write."""
    assert [("failsoft.E909", "write seconds as a number, such as 1209600")] == problems({"SESSION_COOKIE_AGE": age})


def test_short_secret():
    """A SECRET_KEY that is too short seals no cookie."""
    assert ["failsoft.E253"] == [one for one, _ in problems({"SECRET_KEY": "x" * 20})]


def test_server_does_not_start():
    """A disagreement stops the server, and the checks say the same."""
    with override_settings(
        SESSION_ENGINE="failsoft_django.sessions", FAILSOFT={"secret": SECRET, "session_cookie": "a"}
    ):
        with pytest.raises(SettingsError, match="E905"):
            get_runtime()
        assert ["failsoft.E905"] == [one.id for one in check_settings()]
        assert [] == check_sessions()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("mapping", ["FAILSOFT['session_cookie']", "FAILSOFT['cookie_path']"]),
        ("environment", ["FAILSOFT_SESSION_COOKIE", "FAILSOFT_COOKIE_PATH"]),
        ("file", ["session_cookie in {file}", "cookie_path in {file}"]),
    ],
)
def test_where_a_disagreement_comes_from(monkeypatch, tmp_path, source, expected):
    """A disagreement names the place where failsoft's side of it was said."""
    said = {"session_cookie": "other", "cookie_path": "/app"}
    file = tmp_path / "failsoft.toml"
    if source == "environment":
        for key, value in said.items():
            monkeypatch.setenv(f"FAILSOFT_{key.upper()}", value)
    elif source == "file":
        file.write_text("".join(f'{key} = "{value}"\n' for key, value in said.items()))
        monkeypatch.setenv("FAILSOFT_CONFIG", str(file))
    with pytest.raises(SettingsError) as caught:
        loaded(**(said if source == "mapping" else {}))
    assert [one.format(file=file) for one in expected] == [one.where for one in caught.value.problems]


@pytest.mark.parametrize(
    ("failsoft", "where"), [({}, "SESSION_COOKIE_NAME"), ({"cookie_secure": True}, "FAILSOFT['cookie_secure']")]
)
def test_where_a_prefix_comes_from(failsoft, where):
    """Where failsoft says no name, it is not its name that is wrong."""
    with pytest.raises(SettingsError) as caught:
        loaded({"SESSION_COOKIE_SECURE": True}, **failsoft)
    assert [where] == [one.where for one in caught.value.problems]


def test_mistakes_in_djangos_settings():
    """What is wrong with a setting of Django's is told at that one, beside failsoft's where both make the mistake."""
    for changed, failsoft, where in (
        ({"SECRET_KEY": "x" * 20}, {}, "SECRET_KEY and SESSION_ENGINE"),
        ({"SESSION_COOKIE_AGE": 3600}, {"session_idle": "2h"}, "FAILSOFT['session_idle'] and SESSION_COOKIE_AGE"),
    ):
        with pytest.raises(SettingsError) as caught:
            loaded(changed, **failsoft)
        assert [where] == [one.where for one in caught.value.problems]


# What other frameworks make of the same settings

PRINCIPAL = "failsoft_django.auth.PrincipalBackend"
MODEL = "django.contrib.auth.backends.ModelBackend"


def told(django: Any = None, **failsoft: Any) -> list[tuple[str, str]]:
    """The ids and hints of what keeps sessions from being shared."""
    mine = {
        "SESSION_ENGINE": "failsoft_django.sessions",
        "SECRET_KEY": SECRET,
        "AUTHENTICATION_BACKENDS": [MODEL, PRINCIPAL],
    }
    with override_settings(**{**mine, "FAILSOFT": failsoft, **(django or {})}):
        return [(one.id, str(one.hint)) for one in check_sharing()]


@pytest.mark.parametrize(
    ("django", "failsoft", "lines"),
    [
        (
            {},
            {},
            "Write SESSION_COOKIE_NAME = '__Host-session' and SESSION_COOKIE_SECURE = True. For plain HTTP: cookie_secure",
        ),
        ({}, {"cookie_secure": False}, "Write SESSION_COOKIE_NAME = 'session'. If"),
        (
            {
                "SESSION_COOKIE_SECURE": True,
                "SESSION_COOKIE_NAME": "__Host-sessionid",
                "SESSION_COOKIE_SAMESITE": "Strict",
            },
            {},
            "Write SESSION_COOKIE_NAME = '__Host-session' and SESSION_COOKIE_SAMESITE = 'Lax'. If",
        ),
        (
            {"SESSION_COOKIE_NAME": "session", "SESSION_COOKIE_HTTPONLY": False, "SESSION_COOKIE_PATH": "/app"},
            {"cookie_secure": False},
            "Write SESSION_COOKIE_HTTPONLY = True and SESSION_COOKIE_PATH = '/'. If",
        ),
        (
            {"SESSION_COOKIE_NAME": "session", "SESSION_COOKIE_DOMAIN": "example.com"},
            {"cookie_secure": False},
            "Write SESSION_COOKIE_DOMAIN = None. If",
        ),
    ],
)
def test_cookies_that_differ(django, failsoft, lines):
    """Where Flask and Starlette have another cookie with the same settings, it is told what to write."""
    [(identifier, hint)] = told(django, secret=SECRET, **failsoft)
    assert ("failsoft.I901", lines) == (identifier, hint[: len(lines)])


@pytest.mark.parametrize(
    ("django", "failsoft"),
    [
        ({"SESSION_COOKIE_NAME": "session"}, {"secret": SECRET, "cookie_secure": False}),
        ({"SESSION_COOKIE_NAME": "__Host-session", "SESSION_COOKIE_SECURE": True}, {"secret": SECRET}),
        (
            {
                "SESSION_COOKIE_NAME": "session",
                "SESSION_COOKIE_SECURE": True,
                "SESSION_COOKIE_DOMAIN": "example.com",
            },
            {"secret": SECRET, "cookie_domain": "example.com"},
        ),
        (
            {"SESSION_COOKIE_NAME": "__Host-shop", "SESSION_COOKIE_SECURE": True},
            {"secret": SECRET, "session_cookie": "shop"},
        ),
        ({}, {"secret": SECRET, "session_cookie": "sessionid", "cookie_secure": False}),
        ({}, {}),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.file"}, {"secret": SECRET}),
        ({"SESSION_COOKIE_NAME": "other"}, {"secret": SECRET, "session_cookie": "session"}),
    ],
    ids=["plain", "tls", "domain", "name", "said", "alone", "another-engine", "a-mistake"],
)
def test_cookies_of_which_nothing_is_told(django, failsoft):
    """Nothing is told of one cookie, of a project that shares no secret, and of what is a mistake anyway."""
    assert [] == told(django, **failsoft)


@pytest.mark.parametrize("settings_of", ["a secret of the environment's", "Settings"])
def test_cookies_of_other_sources(monkeypatch, settings_of):
    """The secret may come from the environment; complete settings are the same everywhere."""
    if settings_of == "Settings":
        whole = Settings(sessions=True, secret=SECRET, cookie_secure=False)
        assert [] == told({"SESSION_COOKIE_NAME": "session", "FAILSOFT": whole})
    else:
        monkeypatch.setenv("FAILSOFT_SECRET", SECRET)
        assert ["failsoft.I901"] == [one for one, _ in told()]


SAME = {"SESSION_COOKIE_NAME": "session"}


def test_users_that_nobody_knows():
    """Where no backend of ours is there, the line that adds it is told; of a project alone, or without users, nothing."""
    [(identifier, hint)] = told({**SAME, "AUTHENTICATION_BACKENDS": [MODEL]}, secret=SECRET, cookie_secure=False)
    assert "failsoft.I902" == identifier
    assert f"AUTHENTICATION_BACKENDS = ['{MODEL}', '{PRINCIPAL}']" in hint
    assert [] == told(SAME, secret=SECRET, cookie_secure=False)
    assert [] == told({"AUTHENTICATION_BACKENDS": [MODEL]})
    assert [] == told({**SAME, "AUTHENTICATION_BACKENDS": ["nowhere.At"]}, secret=SECRET, cookie_secure=False)
    without = {"AUTHENTICATION_BACKENDS": [MODEL], "INSTALLED_APPS": ["failsoft_django"]}
    assert [] == told({**SAME, **without}, secret=SECRET, cookie_secure=False)


def test_the_line_that_was_told():
    """With the lines that the checks tell, nothing is told any more."""
    lines = {"SESSION_COOKIE_NAME": "__Host-session", "SESSION_COOKIE_SECURE": True}
    assert [] == told({**lines, "AUTHENTICATION_BACKENDS": [MODEL, PRINCIPAL]}, secret=SECRET)


# Changed settings


@pytest.mark.parametrize("setting", ["SESSION_COOKIE_AGE", "SECRET_KEY_FALLBACKS"])
def test_changed_settings(setting):
    """What is overridden in a test counts from then on; without our engine, nothing changes."""
    value: Any = {"SESSION_COOKIE_AGE": 3600, "SECRET_KEY_FALLBACKS": [SECRET]}[setting]
    with override_settings(FAILSOFT={"secret": SECRET}):
        before = get_runtime()
        with override_settings(**{setting: value}):
            assert before is get_runtime()
        with override_settings(SESSION_ENGINE="failsoft_django.sessions"):
            ours = get_runtime()
            assert before is not ours
            with override_settings(**{setting: value}):
                assert ours is not get_runtime()


# Middleware


class Beside(SessionMiddleware):
    """Keeps a session under another name, in another cookie."""

    def process_request(self, request):
        request.other_session = self.SessionStore(request.COOKIES.get("other"))


BESIDE = f"{__name__}.Beside"


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([OURS, NEW], []),
        ([NEW], []),
        ([OURS], []),
        ([OURS, STOCK], ["failsoft.W906"]),
        ([NEW, OURS], ["failsoft.W907"]),
        ([STOCK, OURS], ["failsoft.W906", "failsoft.W907"]),
        ([OURS, NEW, STOCK], ["failsoft.E910"]),
        ([OURS, STOCK, NEW], ["failsoft.E910"]),
        ([OURS, NEW, NEW], ["failsoft.E910"]),
        ([OURS, NEW, BESIDE], []),
        ([OURS, BESIDE, NEW], []),
        ([OURS, BESIDE, STOCK], ["failsoft.W906"]),
        ([OURS, BESIDE], ["failsoft.W906"]),
    ],
)
def test_middleware(middleware, expected):
    """What costs trips to the store is told, and that two keep sessions."""
    with override_settings(
        SESSION_ENGINE="failsoft_django.sessions", FAILSOFT={"secret": SECRET}, MIDDLEWARE=middleware
    ):
        assert expected == [one.id for one in check_sessions()]


@pytest.mark.parametrize(
    ("django", "failsoft", "expected"),
    [
        ({"SESSION_COOKIE_SAMESITE": False}, {}, ("failsoft.W909", "SESSION_COOKIE_SAMESITE: is False", "it says Lax")),
        ({"SESSION_COOKIE_SAMESITE": ""}, {"cookie_samesite": "strict"}, ("failsoft.W909", "is ''", "it says Strict")),
        ({"SESSION_COOKIE_SAMESITE": "Lax"}, {}, None),
        ({"SESSION_COOKIE_AGE": 59}, {}, ("failsoft.W910", "SESSION_COOKIE_AGE: is 59 seconds", "live for 60")),
        ({"SESSION_COOKIE_AGE": 34_560_001}, {}, ("failsoft.W910", "is 34560001 seconds", "live for 34560000")),
        (
            {"SESSION_COOKIE_AGE": 5, "SESSION_SAVE_EVERY_REQUEST": True},
            {},
            ("failsoft.W910", "is 5 seconds", "live for 60"),
        ),
        ({"SESSION_COOKIE_AGE": 60}, {}, None),
        ({"SESSION_COOKIE_AGE": 34_560_000}, {}, None),
        ({"SESSION_COOKIE_AGE": 34_560_001}, {"session_absolute": "90d"}, None),
    ],
)
def test_what_sessions_do_not_have(django, failsoft, expected):
    """What Django's settings ask for, and is something else with failsoft, is told: unless failsoft's own settings say it."""
    with override_settings(
        SESSION_ENGINE="failsoft_django.sessions",
        FAILSOFT={"secret": SECRET, **failsoft},
        MIDDLEWARE=[OURS, NEW],
        **django,
    ):
        found = check_sessions()
    if expected is None:
        assert [] == found
    else:
        assert [expected[0]] == [one.id for one in found]
        assert all(part in found[0].msg for part in expected[1:])


def test_sessions_without_the_engine():
    """Sessions that nothing uses are told."""
    with override_settings(FAILSOFT={"secret": SECRET, "sessions": True}, MIDDLEWARE=[OURS, STOCK]):
        assert ["failsoft.W905"] == [one.id for one in check_sessions()]


def test_partitioned_without_our_middleware():
    """Django's middleware does not send Partitioned."""
    with override_settings(
        SESSION_ENGINE="failsoft_django.sessions",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_NAME="__Host-sessionid",
        FAILSOFT={"secret": SECRET, "cookie_partitioned": True},
        MIDDLEWARE=[OURS, STOCK],
    ):
        [warning] = check_sessions()
        assert "Partitioned" in warning.msg
