"""Django's own tests of session engines, from the source of the Django that is installed, pass with ours.

They are in no wheel. So the source of that version is fetched from wherever this machine gets its packages, and what is needed of it is
kept in tox's directory. Without a network they are skipped, except in CI.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import NoReturn
from urllib.request import urlopen

import django
import pytest

from tests.servers import Valkey

pytestmark = pytest.mark.broad

KEPT = Path(os.environ.get("TOX_WORK_DIR") or Path(__file__).parents[2] / ".tox") / "django-source"
PROGRAM = Path(__file__).with_name("djangos_own.py")
LOCK = ("pip", "compile", "-", "--no-deps", "--no-header", "--quiet", "--format", "pylock.toml")


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def fetched(version: str) -> bytes:
    """The source distribution of that Django."""
    uv = shutil.which("uv")
    if uv is None:
        missing("needs uv, to find the source of Django: pip install uv")
    try:
        said = subprocess.run(
            [uv, *LOCK, "--python", sys.executable],
            input=f"django=={version}",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        source = tomllib.loads(said.stdout)["packages"][0]["sdist"]
        with urlopen(source["url"], timeout=60) as answer:  # noqa: S310 - the index says where, and what its digest is
            data: bytes = answer.read()
    except subprocess.CalledProcessError as error:
        missing(f"the source of Django {version} was not found: {error.stderr}")
    except (OSError, subprocess.TimeoutExpired, KeyError) as error:
        missing(f"the source of Django {version} was not fetched: {error!r}")
    assert source["hashes"]["sha256"] == hashlib.sha256(data).hexdigest()
    return data


@pytest.fixture(scope="session")
def source() -> str:
    """The directory that the tests lie in."""
    version = django.get_version()
    found = KEPT / version
    if not (found / "sessions_tests").is_dir():
        KEPT.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=KEPT))
        with tarfile.open(fileobj=io.BytesIO(fetched(version))) as archive:
            members = [one for one in archive if one.name.split("/")[1:3] == ["tests", "sessions_tests"]]
            archive.extractall(fresh, members, filter="data")
        [root] = fresh.iterdir()
        try:
            (root / "tests").rename(found)
        except OSError:  # another environment was first
            assert (found / "sessions_tests").is_dir()
        shutil.rmtree(fresh)
    return str(found)


@pytest.mark.timeout(300)
def test_engine(source, shared_valkey: Valkey):
    """All of `SessionTestsMixin`, and Django's middleware on our engine: in memory and on a server, with time zones and without."""
    ran = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), source, "memory://", shared_valkey.url], capture_output=True, text=True
    )
    assert 0 == ran.returncode, ran.stderr
    count, coroutines = json.loads(ran.stdout.splitlines()[-1])
    assert count >= 4 * 70
    assert coroutines >= 4 * 20
