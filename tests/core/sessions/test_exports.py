"""What ``import failsoft`` has of sessions, and that it needs none of the optional packages for it."""

import subprocess
import sys

import pytest

import failsoft
from failsoft import errors, events
from tests.processes import quick

_WITHOUT = """
import sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("msgspec", "cryptography"):
            raise ImportError(f"{name} is not installed here")


sys.meta_path.insert(0, Blocked())
import failsoft
from failsoft import Settings, require_live_session, SessionUnavailable
from failsoft.runtime import Runtime

Runtime(Settings.load({"limits": []}, environ={})).close()


@require_live_session
def view(): ...


try:
    Runtime(Settings.load({"sessions": True, "secret": "s" * 40}, environ={}))
except failsoft.ConfigurationError as error:
    print(error)
"""


@pytest.mark.processes
@pytest.mark.once
def test_without_the_optional_packages() -> None:
    """Without msgspec and cryptography everything but sessions works, and who turns those on is told what to install."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", quick(_WITHOUT)], capture_output=True, text=True)
    assert "" == done.stderr
    assert "pip install 'failsoft[sessions]'" in done.stdout


@pytest.mark.parametrize("module", [errors, events], ids=["errors", "events"])
def test_all_of_sessions_is_public(module: object) -> None:
    """Whatever the modules of errors and events say of sessions can be imported from the package."""
    names = [name for name in vars(module)["__all__"] if name.startswith(("Session", "Subject"))]
    assert len(names) > 3
    assert names == [name for name in names if getattr(failsoft, name) is getattr(module, name)]
    assert set(names) <= set(failsoft.__all__)
