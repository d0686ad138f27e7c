"""Decorators that take no arguments, with parentheses and without."""

from typing import Any

import pytest

from failsoft import ConfigurationError, exempt, require_live_session
from failsoft.exchange import collect


@pytest.mark.parametrize("decorator", [exempt, require_live_session])
def test_both_spellings(decorator: Any) -> None:
    """Empty parentheses say no more."""

    @decorator
    def plain() -> None: ...

    @decorator()
    def called() -> None: ...

    assert (decorator,) == collect([plain]) == collect([called])


def test_nothing_is_no_target() -> None:
    """What is put on nothing, as on a view that is not there, is a mistake and not a decorator."""
    nothing: Any = {}.get("static")
    with pytest.raises(ConfigurationError, match="not None"):
        exempt(nothing)
