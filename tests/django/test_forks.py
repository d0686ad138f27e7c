"""Forked children: the first request of one is served, whatever the parent's threads were doing."""

import pytest
from django.test import override_settings

from failsoft_django import get_runtime, runtime
from tests.core.forks import forking, held_elsewhere, in_child

pytestmark = forking


def test_another_thread_was_making_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child makes its own."""
    with override_settings(FAILSOFT={"limits": ["7/minute"]}):
        monkeypatch.setattr(runtime, "_installed", None)

        def child() -> None:
            assert ("7/minute",) == tuple(map(str, get_runtime().settings.limits))

        with held_elsewhere(runtime._lock):
            assert 0 == in_child(child)
