"""The programs, each as if it were alone."""

import pytest

from failsoft.exchange import declarations


@pytest.fixture(autouse=True)
def nothing_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests of the process have declared, and no route leads to, is not told of here."""
    for declaration in declarations():
        monkeypatch.setattr(declaration, "attached", True)
