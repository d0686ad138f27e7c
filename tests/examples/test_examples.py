"""Each program of the documentation does what its page says."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from failsoft.testing.servers import AsgiApp, WsgiApp

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """The example, fresh."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["flask_app", "fastapi_app", "starlette_app", "django_app"])
def application(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each example application, in process."""
    module = load(request.param)
    if request.param == "flask_app":
        app: Any = WsgiApp(module.app, module.app.extensions["failsoft"])
    elif request.param == "django_app":
        from failsoft_django.runtime import get_runtime

        app = WsgiApp(module.application, get_runtime())
    else:
        from failsoft.runtime import runtimes

        known = set(map(id, runtimes()))
        module.app.middleware_stack = module.app.build_middleware_stack()
        app = AsgiApp(module.app, next(one for one in runtimes() if id(one) not in known))
    with app:
        yield app


def test_application(application: Any) -> None:
    """It answers, counts, and refuses what is beyond its limit, with the header fields and the problem document."""
    replies = [application.get("/") for _ in range(13)]
    assert [200] * 12 + [429] == [reply.status for reply in replies]
    assert {"1000-per-minute": 999, "12-per-minute": 11} == {k: v.remaining for k, v in replies[0].limits.items()}
    assert ["12-per-minute"] == replies[-1].json()["violated-policies"]
    assert replies[-1].retry_after is not None


@pytest.mark.timeout(120)
def test_demo() -> None:
    """The demonstration observes what it tells, and says so."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        env={name: value for name, value in os.environ.items() if not name.startswith("FAILSOFT_")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.rstrip().endswith("All of this was observed.")
