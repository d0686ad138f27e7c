"""A mistake in the settings, met by whoever starts a real server."""

import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT, environment

SERVERS = {
    "flask": ["gunicorn", "--chdir=examples", "--bind=unix:{socket}", "flask_app:app"],
    "django": ["gunicorn", "--chdir=examples", "--bind=unix:{socket}", "django_app:application"],
    "fastapi": ["uvicorn", "--app-dir=examples", "--uds={socket}", "fastapi_app:app"],
}


@pytest.mark.parametrize("framework", SERVERS)
def test_a_mistake_ends_the_server(framework: str, tmp_path: Path) -> None:
    """It does not go on and answer everybody with 500: it ends, and its log names what is wrong."""
    command = [word.format(socket=tmp_path / "socket") for word in SERVERS[framework]]
    variables = environment(XDG_RUNTIME_DIR=str(tmp_path), FAILSOFT_LOCAL_SHARE="7")
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert 3 == done.returncode, done.stderr
    assert "FAILSOFT_LOCAL_SHARE" in done.stderr
