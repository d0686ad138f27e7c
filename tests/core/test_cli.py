"""The command line: the program, naming applications, and the listing of limits."""

import importlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import failsoft
from failsoft import cli, limit
from failsoft.cli import commands
from failsoft.cli.report import Report, percent, span, write
from failsoft.inspection import Description, RouteInfo
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
    ],
)
def test_names(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str) -> None:
    """An application is an attribute, by default ``app``, or what a factory makes."""
    own(monkeypatch)
    asked = described(monkeypatch)
    (here / "site_three.py").write_text("app = 'app'\ndef make(): return 'made'\nclass nested:\n    app = 'nested'\n")
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
    ],
)
def test_mistakes(here: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    """A mistake in the call is told in one line, with exit status 2."""
    (here / "site_four.py").write_text("app = object()\n")
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
