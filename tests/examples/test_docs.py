"""What the documentation shows is what runs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def module(name: str) -> ModuleType:
    """One of the programs that write the documentation."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def blocks(page: Path) -> list[str]:
    """The Python programs on a page."""
    return [match[2] for match in PYTHON.finditer(page.read_text())]


PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_are_files(page: Path) -> None:
    """Every program on a page is that of a file that tests run; `make pages` writes them anew."""
    snippets = module("snippets")
    text = page.read_text()
    assert len(blocks(page)) == len(snippets.PROGRAM.findall(text))
    assert snippets.written(text) == text


def test_settings_page() -> None:
    """The page on settings is what the settings say of themselves; `make pages` writes it anew."""
    assert module("reference").page() == (ROOT / "docs" / "settings.md").read_text()


def test_readme_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the README run, and their limits hold."""
    from flask import Flask

    from failsoft.runtime import runtimes
    from failsoft.testing.servers import AsgiApp, WsgiApp

    flask, django, fastapi = [
        block.replace("redis://localhost:6379/0", "memory://") for block in blocks(ROOT / "README.md")
    ]
    space: dict[str, object] = {"__name__": "readme"}
    exec(compile(flask, "README.md", "exec"), space)
    app = space["app"]
    assert isinstance(app, Flask)
    with WsgiApp(app, app.extensions["failsoft"]) as client:
        assert [200] * 10 + [429] == client.statuses(11, "/search")
    space = {"__name__": "readme", "INSTALLED_APPS": [], "MIDDLEWARE": []}
    exec(compile(django, "README.md", "exec"), space)
    assert callable(space["transfer"])
    known = set(map(id, runtimes()))
    space = {"__name__": "readme"}
    exec(compile(fastapi, "README.md", "exec"), space)
    asgi = space["app"]
    asgi.middleware_stack = asgi.build_middleware_stack()  # type: ignore[attr-defined]  # a FastAPI application
    with AsgiApp(asgi, next(one for one in runtimes() if id(one) not in known)) as server:
        assert [200] * 10 + [429] == server.statuses(11, "/export/1")
