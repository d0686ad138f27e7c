"""Operations as commands, and replies as answers."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import OutOfMemoryError, ResponseError

from failsoft.errors import OperationFailed
from failsoft.exchange.operations import Argument
from failsoft.stores.redis.commands import answers, by_sha, by_source, pack_in_python
from tests.core.stores.lua import ECHO, INCR, Lua
from tests.core.texts import any_text

ARGUMENTS = st.lists(st.one_of(any_text(), st.binary(), st.integers(), st.floats()), max_size=6)


@pytest.fixture(scope="module")
def hiredis() -> Any:
    """The package, where it is installed."""
    return pytest.importorskip("hiredis")


@settings(deadline=None)
@given(ARGUMENTS)
def test_both_packers_agree(hiredis: Any, arguments: list[Argument]) -> None:
    """What hiredis packs and what Python packs is the same, byte for byte."""
    command = ("EVALSHA", *arguments)
    try:
        expected = hiredis.pack_command(command)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            pack_in_python(command)
    else:
        assert expected == pack_in_python(command)


def test_commands() -> None:
    """A flight is one piece; the second time it carries the scripts themselves."""
    operations = [Lua(INCR, "k"), Lua(ECHO, arguments=("é", 1))]

    assert (
        b"*4\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n1\r\n$1\r\nk\r\n" % INCR.sha.encode()
        + b"*5\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n$2\r\n\xc3\xa9\r\n$1\r\n1\r\n" % ECHO.sha.encode()
    ) == by_sha(operations)
    assert (b"*5\r\n$4\r\nEVAL\r\n$14\r\nreturn ARGV[1]\r\n$1\r\n0\r\n$2\r\n\xc3\xa9\r\n$1\r\n1\r\n") == by_source(
        operations[1:]
    )


class Again(Lua):
    """An operation that is sent more than once."""

    packed: bytes | None = None


class Constant(tuple[Argument, ...]):
    """Arguments that many operations have."""

    packed: bytes | None = None


@settings(deadline=None)
@given(st.lists(any_text(), max_size=3), ARGUMENTS)
def test_what_is_packed_once(keys: list[str], arguments: list[Argument]) -> None:
    """An operation, or its arguments, may keep what they are on the wire: that is the same, and is made once."""
    plain = Lua(ECHO, *keys, arguments=arguments)
    try:
        expected = by_sha([plain])
    except UnicodeEncodeError:
        return
    again, constant = Again(ECHO, *keys, arguments=arguments), Constant(arguments)

    assert [expected] * 2 == [by_sha([again]), by_sha([Lua(ECHO, *keys, arguments=constant)])]
    assert expected == again.packed
    assert constant.packed is not None
    assert expected.endswith(constant.packed)
    again.arguments = ["another"]
    kept = constant.packed
    assert expected == by_sha([again])
    assert by_sha([Lua(INCR, "k", arguments=arguments)]) == by_sha([Lua(INCR, "k", arguments=constant)])
    assert kept is constant.packed
    assert by_source([plain]) == by_source([Lua(ECHO, *keys, arguments=constant)])


@pytest.mark.parametrize("misfit", [None, [1], object()])
def test_what_cannot_be_sent(misfit: object) -> None:
    """An argument of another type is refused by both packers alike."""
    with pytest.raises(TypeError):
        pack_in_python(("EVALSHA", misfit))
    with pytest.raises(TypeError):
        by_sha([Lua(ECHO, arguments=(misfit,))])  # type: ignore[arg-type]  # that is the test


class Heard(list[OperationFailed]):
    """What was told of."""

    def refused(self, failed: OperationFailed) -> None:
        self.append(failed)


def test_answers() -> None:
    """A reply is parsed, an error reply and a reply that is not understood fail their operation alone."""
    operations = [Lua(ECHO, parse=int), Lua(ECHO), Lua(ECHO, parse=int), Lua(ECHO)]
    heard = Heard()

    first, second, third, fourth = answers(operations, [b"1", ValueError("no"), b"x", None], heard)

    assert (1, None) == (first, fourth)
    assert isinstance(second, OperationFailed)
    assert "test.echo: no" == str(second)
    assert isinstance(third, OperationFailed)
    assert str(third).startswith("test.echo: the reply was not understood: ValueError")
    assert [second, third] == heard


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ResponseError("MISCONF it cannot persist to disk"), "MISCONF"),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OOM"),
        (ResponseError("wrong number of arguments"), "ResponseError"),
        (ResponseError(""), "ResponseError"),
    ],
)
def test_the_kind_of_an_error(error: ResponseError, code: str) -> None:
    """It is the server's word, also where redis-py takes it off the text; where there is none, what redis-py calls it."""
    [failed] = answers([Lua(ECHO)], [error], Heard())
    assert code == failed.code
