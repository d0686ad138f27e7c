"""The command line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import failsoft
from failsoft import cli, limit
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

    monkeypatch.setattr(cli, "describe", describe)
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
    assert lines[3].endswith("on outage local, cost 2")
    assert ["POST    /b", "        no limit"] == lines[5:7]


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


@pytest.mark.parametrize("arguments", [[], ["limits"], ["peek"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A call that makes no sense shows the usage, with exit status 2."""
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert 2 == raised.value.code
    assert "usage: failsoft" in capsys.readouterr().err
