"""What the documentation shows is what runs."""

import importlib.util
import re
import subprocess
import sys
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


ANSWER = """:
    from django.http import HttpResponse
    return HttpResponse("done")
"""
AROUND_DJANGO = (
    """
ROOT_URLCONF, ALLOWED_HOSTS, INSTALLED_APPS, MIDDLEWARE = "readme_django", ["testserver"], [], ["readme_django.somebody"]
""",
    """
from types import SimpleNamespace

def somebody(get_response):
    def named(request):
        name = request.headers.get("X-User")
        request.user = SimpleNamespace(pk=name, is_authenticated=name is not None)
        return get_response(request)
    return named

from django.urls import path
urlpatterns = [path("transfer", transfer)]

if __name__ == "__main__":
    import os
    import django
    from django.test import Client
    os.environ["DJANGO_SETTINGS_MODULE"] = "readme_django"
    django.setup()
    client = Client()
    def statuses(n, **who):
        return [client.get("/transfer", headers=who).status_code for _ in range(n)]
    print(statuses(2), statuses(6, **{"X-User": "ada"}))
""",
)


def test_readme_programs(tmp_path: Path) -> None:
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
    (tmp_path / "readme_django.py").write_text(AROUND_DJANGO[0] + django.replace(": ...", ANSWER) + AROUND_DJANGO[1])
    served = subprocess.run(
        [sys.executable, "readme_django.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "[403, 403] [200, 200, 200, 200, 200, 429]\n" == served.stdout, served.stderr
    known = runtimes()
    space = {"__name__": "readme"}
    exec(compile(fastapi, "README.md", "exec"), space)
    asgi = space["app"]
    asgi.middleware_stack = asgi.build_middleware_stack()  # type: ignore[attr-defined]  # a FastAPI application
    with AsgiApp(asgi, next(one for one in runtimes() if one not in known)) as server:
        assert [200] * 10 + [429] == server.statuses(11, "/export/1")
