"""The command line: the program, naming applications, and the listing of limits."""

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import failsoft
from failsoft import cli, criticality, limit
from failsoft.cli import commands
from failsoft.cli.report import Report, percent, span, write
from failsoft.inspection import Description, RouteInfo
from failsoft.settings import Settings
from failsoft.testing import FaultyStore
from tests.core.requests import make_runtime


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of modules called ``site_...``, where the command is run; what it imports is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("site_")]:
        del sys.modules[name]


def described(monkeypatch: pytest.MonkeyPatch, *routes: RouteInfo, **settings: Any) -> list[Any]:
    """Describe every application as one with `routes`. Returns the applications that were asked for."""
    asked: list[Any] = []

    def describe(app: Any) -> Description:
        asked.append(app)
        return Description("Framework", make_runtime(**settings), routes)

    monkeypatch.setattr(commands, "describe", describe)
    return asked


def own(monkeypatch: pytest.MonkeyPatch, *lost: Any) -> None:
    """Let only `lost` be unattached: other tests of this process have declarations of their own."""
    monkeypatch.setattr(Description, "unattached", lambda self: list(lost))


def test_listing(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each method of each route is listed with its limits, or with none."""

    @limit("9/minute", by="user", cost=2)
    def view() -> None: ...

    own(monkeypatch)
    described(monkeypatch, RouteInfo("GET", "/a", (view,)), RouteInfo("POST", "/b", ()), limits=[])
    (here / "site_one.py").write_text("app = object()\n")
    assert 0 == cli.main(["limits", "site_one:app"])
    lines = capsys.readouterr().out.splitlines()
    assert "Framework on memory://" == lines[0]
    assert "GET     /a" == lines[2]
    assert lines[3].strip().startswith("9 per 60 s by user, from ")
    assert f"({__file__}:{view.__wrapped__.__code__.co_firstlineno})" in lines[3]
    assert lines[3].endswith("on outage local, cost 2")
    assert ["POST    /b", "        no limit"] == lines[5:7]


def test_listing_of_what_there_is_besides(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Further stores, scopes, and that everything is turned off, are told once; a file below the directory by its name there."""
    (here / "site_views.py").write_text(
        "from failsoft import limit\n\n@limit('9/minute', store='bulk', shadow=True)\ndef view(): ...\n"
        "async def waits(): ...\n"
    )
    monkeypatch.syspath_prepend(here)
    view = importlib.import_module("site_views").view
    own(monkeypatch)
    described(
        monkeypatch,
        RouteInfo("GET", "/a", (view,)),
        enabled=False,
        stores={"bulk": "memory://"},
        scopes=[{"name": "api", "prefix": "/a", "host": "*.test", "limits": ["5/day"]}],
    )
    assert 0 == cli.main(["limits"], app="anything")
    source = "site_views.view (site_views.py:3)"
    assert [
        "Framework on memory://",
        "store bulk: memory://",
        "scope api: paths below /a, host *.test",
        "enabled is false: no limit is enforced",
        "",
        "GET     /a",
        "        5 per 86400 s by ip, from scopes: api, on outage local, where the host is *.test",
        f"        9 per 60 s by ip, from {source}, on outage local, shadow, in store bulk",
    ] == capsys.readouterr().out.splitlines()


def test_a_private_server_is_called_what_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a server that nobody named by its socket, the listing says what is in the settings as well."""
    monkeypatch.setattr(FaultyStore, "url", "unix:///tmp/x/valkey.sock")
    runtime = make_runtime(store=FaultyStore())
    own(monkeypatch)
    monkeypatch.setattr(commands, "describe", lambda _: Description("Framework", runtime, ()))
    for given, expected in (("embedded://", "embedded:// (unix:///tmp/x/valkey.sock)"), ("memory://", FaultyStore.url)):
        runtime.settings = Settings(store=given)
        assert 0 == cli.main(["limits"], app="anything")
        assert f"Framework on {expected}" == capsys.readouterr().out.splitlines()[0]


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *routes: RouteInfo, **said: Any
) -> list[str]:
    """What is listed of `routes`, without the empty lines."""
    own(monkeypatch)
    more = ["--all"] if said.pop("every", False) else []
    described(monkeypatch, *routes, **said)
    assert 0 == cli.main(["limits", *more], app="anything")
    return [line for line in capsys.readouterr().out.splitlines()[1:] if line]


def test_methods_that_say_the_same_are_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Methods of a route with the same limits are listed together, those with others by themselves; all of them are any."""

    @limit("9/minute", methods=["POST"])
    def view() -> None: ...

    usual = ("GET", "POST", "PUT", "PATCH", "DELETE")
    routes = [RouteInfo(method, "/any", ()) for method in usual]
    routes += [RouteInfo(method, "/some", (view,)) for method in usual]
    routes += [RouteInfo(method, template, ()) for template in ("transfer", r"^old/(\d+)$", "") for method in usual[:2]]
    lines = shown(monkeypatch, capsys, *routes, limits=[])
    assert [
        "any     /any",
        "        no limit",
        "GET, PUT, PATCH, DELETE /some",
        "        no limit",
        "POST    /some",
        lines[5],
        "GET, POST /transfer",
        "        no limit",
        r"GET, POST /old/(\d+)$",
        "        no limit",
        "GET, POST /",
        "        no limit",
    ] == lines
    assert lines[5].startswith("        9 per 60 s by ip")


def test_many_routes_that_say_the_same_are_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Many routes of one part of the application with the same limits are one entry, unless each is asked for; others are not."""

    @limit("9/minute")
    def view() -> None: ...

    admin = [RouteInfo("GET", f"admin/{name}/add/", (), ("admin", "admin")) for name in ("user", "group", "site")]
    admin += [
        RouteInfo("POST", "admin/user/add/", (), ("admin", "admin")),
        RouteInfo("GET", "admin/", (view,), ("admin", "admin")),
    ]
    admin += [RouteInfo("GET", "admin/jsi18n/", (), ("admin", "admin"))]
    rest = [RouteInfo("GET", f"/{name}", (), groups) for groups in ((), ("shop",)) for name in "abc"]
    rest += [RouteInfo("GET", "/d", ())]
    everything = shown(monkeypatch, capsys, *admin, *rest, limits=["5/day"], every=True)
    assert [
        "GET, POST /admin/user/add/",
        "GET     /admin/group/add/",
        "GET     /admin/site/add/",
        "GET     /admin/",
        "GET     /admin/jsi18n/",
        *(f"GET     /{name}" for name in "abcabcd"),
    ] == [line for line in everything if not line.startswith(" ")]
    lines = shown(monkeypatch, capsys, *admin, *rest, limits=["5/day"])
    assert ["4 routes of admin, below /admin/", "        5 per 86400 s by ip, from limits, on outage local"] == lines[
        :2
    ]
    assert "GET     /admin/" == lines[2]
    assert [f"GET     /{name}" for name in "abcabcd"] == lines[5:-1:2]
    assert "4 routes are shown together, for they say the same; --all shows each" == lines[-1]


def test_criticality(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where load is shed, each route says its class, by its decorator or by the setting; elsewhere none does."""

    @criticality("sheddable")
    def view() -> None: ...

    routes = [RouteInfo("GET", "news", (view,)), RouteInfo("GET", "pay/now", ()), RouteInfo("GET", "/livez", ())]
    given: dict[str, Any] = {"limits": [], "shed_min": 5, "criticality": {"/pay": "critical_plus"}}
    assert [
        "load shedding: each process serves 5 to 200 requests at once",
        "GET     /news",
        "        no limit",
        "        criticality sheddable",
        "GET     /pay/now",
        "        no limit",
        "        criticality critical_plus",
        "GET     /livez",
        "        no limit",
        "        criticality exempt",
    ] == shown(monkeypatch, capsys, *routes, shed=True, **given)
    assert 0 == cli.main(["limits", "--json"], app="anything")
    found = json.loads(capsys.readouterr().out)["routes"]
    assert [("/news", "sheddable"), ("/pay/now", "critical_plus"), ("/livez", "exempt")] == [
        (route["route"], route["criticality"]) for route in found
    ]
    assert not any("criticality" in line for line in shown(monkeypatch, capsys, *routes, **given))
    assert not any(
        "criticality" in line for line in shown(monkeypatch, capsys, *routes, shed=True, enabled=False, **given)
    )


def test_listing_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as one JSON document, with every property of each limit by its name."""

    @limit("9/minute", name="one", lease=20)
    def view() -> None: ...

    own(monkeypatch)
    described(monkeypatch, RouteInfo("GET", "/a", (view,)), limits=[])
    assert 0 == cli.main(["limits", "--json"], app="anything")
    found = json.loads(capsys.readouterr().out)
    assert ("Framework", True, {"default": "memory://"}, []) == tuple(
        found[key] for key in ("framework", "enabled", "stores", "unattached")
    )
    (route,) = found["routes"]
    assert ("GET", "/a") == (route["method"], route["route"])
    assert {
        "name": "one",
        "declared": "one",
        "quota": "9 per 60 s",
        "by": "ip",
        "source": f"{__name__}.test_listing_for_programs.<locals>.view",
        "where": f"{__file__}:{view.__wrapped__.__code__.co_firstlineno}",
        "on_outage": "local",
        "store": "default",
        "algorithm": "fixed-window",
        "condition": None,
        "shared": None,
        "when": None,
        "cost": 1,
        "per_method": False,
        "charge_on": None,
        "peek": False,
        "adjustable": False,
        "penalty": None,
        "shadow": False,
        "lease": 20,
        "late": False,
        "messages": False,
    } == route["limits"][0]


def test_lost_declarations_are_findings(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit that no route leads to makes the command fail, with file and line."""
    from failsoft.exchange.policy import Declaration

    def lost() -> None: ...

    declaration = Declaration(lost)
    declaration.add(limit("7/minute"))
    own(monkeypatch, declaration)
    described(monkeypatch)
    (here / "site_two.py").write_text("app = object()\n")
    assert 1 == cli.main(["limits", "site_two:app"])
    assert "test_cli.py" in capsys.readouterr().out
    assert 1 == cli.main(["limits", "site_two:app", "--json"])
    assert ["limit('7/minute')"] == json.loads(capsys.readouterr().out)["unattached"][0]["declared"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("site_three:app", "app"),
        ("site_three", "app"),
        ("site_three:make", "made"),
        ("site_three:nested.app", "nested"),
        ("site_three:given", "debug"),
    ],
)
def test_names(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    """An application is an attribute, by default ``app``, or what a factory makes."""
    own(monkeypatch)
    asked = described(monkeypatch)
    (here / "site_three.py").write_text(
        "from functools import wraps\napp = 'app'\ndef make(): return 'made'\nclass nested:\n    app = 'nested'\n"
        "def configured(function):\n    @wraps(function)\n    def made(): return function('debug')\n    return made\n"
        "@configured\ndef given(config): return config\n"
    )
    assert 0 == cli.main(["limits", name])
    assert [expected] == asked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:app", "no module 'no_such_module'"),
        ("site_four.no_such_part:app", "no module 'site_four.no_such_part'"),
        ("site_four:nothing", "no attribute 'nothing'"),
        (":app", "names no module"),
        (".site_four:app", "names no module"),
        ("site_four:app", "no application of an installed adapter"),
        (
            "site_four:view",
            "site_four:view is a function that needs a request, as a view does; name the application as",
        ),
        ("site_four:waits", "site_four:waits is a function that needs a request"),
        ("site_four:make", "called without arguments to make the application: missing a required argument: 'config'"),
    ],
)
def test_mistakes(here: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    """A mistake in the call is told in one line, with exit status 2."""
    (here / "site_four.py").write_text(
        "from failsoft import limit\napp = object()\ndef make(config): ...\n@limit('9/minute')\ndef view(): ...\n"
        "async def waits(): ...\n"
    )
    assert 2 == cli.main(["limits", name])
    error = capsys.readouterr().err
    assert message in error
    assert (1, True) == (error.count("\n"), error.startswith("failsoft: "))


def test_missing_dependency_of_the_application(here: Path) -> None:
    """A module that the application misses is the application's own error, whatever it is called."""
    (here / "site_five.py").write_text("import site_fiv\n")
    with pytest.raises(ModuleNotFoundError, match="site_fiv"):
        cli.main(["limits", "site_five:app"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is that of the package."""
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert (0, f"failsoft {failsoft.__version__}\n") == (raised.value.code, capsys.readouterr().out)


def test_module() -> None:
    """The package can be run as a module, and its exit status is that of the command."""
    for arguments, expected in ((["--version"], 0), (["limits", "no:app"], 2)):
        command = [sys.executable, "-m", "failsoft", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (expected, "") == (done.returncode, done.stderr if expected == 0 else "")
        if arguments == ["--version"]:
            assert f"failsoft {failsoft.__version__}\n" == done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["limits"],
        ["unknown"],
        ["explain", "module:app", "GET"],
        ["refund", "module:app", "GET", "/", "--units", "0"],
        ["refund", "module:app", "GET", "/", "--units", "1.5"],
        ["store"],
        ["store", "memory://", "sing"],
        ["store", "memory://", "latency", "--count", "10001"],
        ["store", "memory://", "keys", "--sample", "1000001"],
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A call that makes no sense shows the usage, with exit status 2."""
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert 2 == raised.value.code
    assert "usage: failsoft" in capsys.readouterr().err


def test_within_another_program(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the application is known, no command asks for it, and the usage names the other program."""
    with pytest.raises(SystemExit):
        cli.main(["explain", "--help"], app=object(), program="other failsoft")
    shown = capsys.readouterr().out
    assert ("usage: other failsoft explain" in shown, "module:attribute" in shown) == (True, False)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.05, "0.1 s"),
        (99.94, "99.9 s"),
        (100, "1 min 40 s"),
        (3600, "1 h"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_times(seconds: float, words: str) -> None:
    """A time is told with as much as matters of it."""
    assert words == span(seconds)


def test_reports() -> None:
    """A report is text or JSON, and says the exit status; a share of nothing is nothing."""
    report = Report(["a", "b"], {"a": "ä"}, 1)
    outs = [io.StringIO(), io.StringIO()]
    assert [1, 1] == [write(report, out, as_json=json_) for out, json_ in zip(outs, (False, True), strict=True)]
    assert ["a\nb\n", '{\n  "a": "ä"\n}\n'] == [out.getvalue() for out in outs]
    assert ("50 %", "0 %") == (percent(1, 2), percent(1, 0))
