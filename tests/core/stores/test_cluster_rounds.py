"""The way of a flight over the nodes of a cluster, without a cluster: who is sent what, and what comes of the replies."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError

from failsoft.errors import OperationFailed, StoreUnavailable
from failsoft.exchange.operations import Operation, Script
from failsoft.stores.cluster.rounds import MOST, Rounds
from failsoft.stores.cluster.slots import Address, read_view, slot_of
from tests.clusters import slot_of as slot_in_tests
from tests.core.stores.lua import ECHO, INCR, Lua

A, B, C = "{a}", "{b}", "{c}"
"""Keys of three slots."""


class Map:
    """A cluster on paper: each slot lies where its key says."""

    def __init__(self, **nodes: str) -> None:
        self.nodes: dict[int | None, str] = {slot_of(f"{{{tag}}}"): node for tag, node in nodes.items()}
        self.learnt: list[tuple[int, str]] = []
        self.lost: list[str] = []
        self.errors: list[str] = []

    def serves(self, slot: int | None) -> str | None:
        return self.nodes.get(slot)

    def at(self, address: Address, near: str) -> str | None:
        host, _ = address
        return None if host == "nowhere" else host or near

    def failed(self, node: str) -> None:
        self.lost.append(node)

    def refused(self, failed: OperationFailed) -> None:
        self.errors.append(str(failed))

    def moved(self, slot: int, node: str) -> None:
        self.learnt.append((slot, node))


class Count(Lua):
    """Counts every key, or none if one of the places says 0: then what the others counted is taken back."""

    def divide(self, place: Callable[[str], Hashable]) -> Sequence[Operation]:
        groups: dict[Hashable, list[str]] = {}
        for key in self.keys:
            groups.setdefault(place(key), []).append(key)
        return [Count(INCR, *keys) for keys in groups.values()] if len(groups) > 1 else [self]

    def unite(self, parts: Sequence[Operation], answers: Sequence[Any]) -> tuple[Any, Sequence[Operation]]:
        good = [part for part, answer in zip(parts, answers, strict=True) if isinstance(answer, int) and answer]
        if len(good) == len(parts):
            return sum(answers), ()
        bad = next(answer for answer in answers if not isinstance(answer, int) or not answer)
        return bad, [Lua(UNCOUNT, *part.keys) for part in good]


UNCOUNT = Script("test.uncount", "return 0")


def error(kind: type[ResponseError], text: str) -> ResponseError:
    """An error reply as redis-py gives it."""
    return kind(text)


def moved(key: str, to: str) -> ResponseError:
    """``key`` lies at ``to``."""
    return error(MovedError, f"{slot_of(key)} {to}:1")


def ask(key: str, to: str) -> ResponseError:
    """``key`` will lie at ``to``."""
    return error(AskError, f"{slot_of(key)} {to}:1")


TRYAGAIN = error(TryAgainError, "Multiple keys request during rehashing of slot")


def turn(rounds: Rounds[str], **replies: Any) -> dict[str, list[tuple[str, ...]]]:
    """One round: what each node was sent, as keys; each gives its replies."""
    ready = rounds.take()
    for node, steps in ready.items():
        rounds.receive(node, steps, replies[node])
    return {node: [tuple(step.operation.keys) for step in steps] for node, steps in ready.items()}


@given(st.text(alphabet="ab{}x:é", max_size=12))
@settings(deadline=None)
def test_slots(key: str) -> None:
    """A key's slot is the one that the specification, and redis-py, give it."""
    assert key_slot(key.encode()) == slot_of(key)
    assert slot_of(key) == slot_in_tests(key)


def test_one_round() -> None:
    """Operations are sent together to the nodes of their keys; the answers stand in the operations' order."""
    rounds = Rounds([Lua(INCR, A), Lua(INCR, B), Lua(INCR, C)], Map(a="one", b="two", c="one"))

    sent = turn(rounds, one=[1, 3], two=[2])

    assert {"one": [(A,), (C,)], "two": [(B,)]} == sent
    assert rounds.over
    assert [1, 2, 3] == rounds.answers()
    assert not rounds.astray


def test_no_keys() -> None:
    """An operation without keys may run anywhere."""
    places = Map()
    places.nodes[None] = "any"
    rounds = Rounds([Lua(ECHO, arguments=("x",))], places)

    assert {"any": [()]} == turn(rounds, any=["x"])
    assert ["x"] == rounds.answers()


def test_a_reply_that_is_not_understood() -> None:
    """It fails its operation alone, as an error reply does."""

    def parse(reply: Any) -> Any:
        raise ValueError("what?")

    places = Map(a="one")
    rounds = Rounds([Lua(INCR, A, parse=parse), Lua(INCR, A), Lua(INCR, A)], places)
    turn(rounds, one=[1, ResponseError("WRONGTYPE no"), 3])

    wrong, failed, right = rounds.answers()

    assert "test.incr: the reply was not understood: ValueError('what?')" == str(wrong)
    assert "test.incr: WRONGTYPE no" == str(failed)
    assert 3 == right
    assert not rounds.astray
    assert [str(wrong), str(failed)] == places.errors


def test_a_key_that_cannot_be_sent() -> None:
    """It fails its operation, and nothing is sent for it."""
    rounds = Rounds([Lua(INCR, "\ud800"), Lua(INCR, 5), Lua(INCR, A, arguments=(None,))], Map(a="one"))  # type: ignore[arg-type]  # that is the test

    assert rounds.over
    assert all(isinstance(answer, OperationFailed) for answer in rounds.answers())


def test_keys_in_several_slots() -> None:
    """An operation that is not divisible fails, with the cause and the cure; its neighbours do not."""
    rounds = Rounds([Lua(INCR, A, B), Lua(INCR, A)], Map(a="one", b="one"))
    turn(rounds, one=[1])

    failed, right = rounds.answers()

    assert "test.incr: its keys lie in 2 slots of the cluster; give them a {tag} in common" == str(failed)
    assert 1 == right


def test_moved() -> None:
    """The step goes to where it was sent, once more by the script's name; the move is learnt."""
    places = Map(a="one", b="one")
    rounds = Rounds([Lua(INCR, A), Lua(INCR, B)], places)

    turn(rounds, one=[moved(A, "two"), 7])
    sent = rounds.take()
    (step,) = sent["two"]
    rounds.receive("two", [step], [8])

    assert step.data.startswith(b"*4\r\n$7\r\nEVALSHA")
    assert [8, 7] == rounds.answers()
    assert [(slot_of(A), "two")] == places.learnt
    assert rounds.astray


def test_moved_to_the_same_host() -> None:
    """A node may leave out a host that is its own."""
    rounds = Rounds([Lua(INCR, A)], Map(a="one"))

    turn(rounds, one=[error(MovedError, f"{slot_of(A)} :7")])

    assert {"one": [(A,)]} == turn(rounds, one=[1])


def test_ask() -> None:
    """The step goes where it was sent with ASKING before it, and with the whole script; nothing is learnt from it."""
    places = Map(a="one")
    rounds = Rounds([Lua(INCR, A)], places)

    turn(rounds, one=[ask(A, "two")])
    (step,) = rounds.take()["two"]
    rounds.receive("two", [step], [8])

    assert step.data.startswith(b"*1\r\n$6\r\nASKING\r\n*4\r\n$4\r\nEVAL\r\n")
    assert [8] == rounds.answers()
    assert [] == places.learnt
    assert not rounds.astray


def test_asked_too_late() -> None:
    """A step that met MOVED after ASK is an ordinary one again."""
    rounds = Rounds([Lua(INCR, A)], Map(a="one"))

    turn(rounds, one=[ask(A, "two")])
    turn(rounds, two=[moved(A, "three")])
    (step,) = rounds.take()["three"]

    assert not step.asking
    assert step.data.startswith(b"*4\r\n$7\r\nEVALSHA")


def test_a_redirection_to_nowhere() -> None:
    """An address that cannot be one is not followed."""
    rounds = Rounds([Lua(INCR, A), Lua(INCR, A)], Map(a="one"))

    turn(rounds, one=[moved(A, "nowhere"), error(MovedError, "5 six:6")])
    turn(rounds, six=[6])

    assert "test.incr: 15495 nowhere:1" == str(rounds.answers()[0])
    assert 6 == rounds.answers()[1]


def test_sent_in_a_circle() -> None:
    """Nodes that send a step to each other get rid of it after five attempts."""
    rounds = Rounds([Lua(INCR, A)], Map(a="one"))

    for _ in range(MOST):
        ((node, steps),) = rounds.take().items()
        rounds.receive(node, steps, [moved(A, "two" if node == "one" else "one")])

    assert rounds.over
    assert "test.incr: no node of the cluster took it within 5 attempts" == str(rounds.answers()[0])


def test_given_up() -> None:
    """What a step that was not sent has for an answer when the time is over."""
    rounds = Rounds([Lua(INCR, A), Lua(INCR, B)], Map(a="one", b="one"))
    turn(rounds, one=[moved(A, "two"), 1])

    rounds.give_up(StoreUnavailable("timeout", "too late"))

    assert rounds.over
    assert "test.incr: no answer from its part of the cluster: timeout: too late" == str(rounds.answers()[0])


def test_a_node_without_an_answer() -> None:
    """Its operations fail; the others' answers stand."""
    away = StoreUnavailable("open", "it is down")
    places = Map(a="one", b="two")
    rounds = Rounds([Lua(INCR, A), Lua(INCR, B)], places)
    turn(rounds, one=away, two=[2])

    failed, right = rounds.answers()

    assert isinstance(failed, OperationFailed)
    assert "test.incr: no answer from its part of the cluster: open: it is down" == str(failed)
    assert 2 == right
    assert rounds.astray
    assert ["one"] == places.lost


def test_no_answer_at_all() -> None:
    """Where no operation has an answer, the first reason is raised; a slot that nobody has is one too."""
    away = StoreUnavailable("open", "it is down")
    rounds = Rounds([Lua(INCR, A), Lua(INCR, B)], Map(a="one"))
    turn(rounds, one=away)

    with pytest.raises(StoreUnavailable) as raised:
        rounds.answers()
    assert away is raised.value
    with pytest.raises(StoreUnavailable, match=f"no_connection: no node of the cluster has slot {slot_of(B)}"):
        Rounds([Lua(INCR, B)], Map(a="one")).answers()


def test_the_cluster_is_down() -> None:
    """CLUSTERDOWN is an error like others, but a reason to look again who serves what."""
    rounds = Rounds([Lua(INCR, A)], Map(a="one"))

    turn(rounds, one=[error(ClusterDownError, "The cluster is down")])

    assert "test.incr: The cluster is down" == str(rounds.answers()[0])
    assert rounds.astray


def test_divided() -> None:
    """A divisible operation runs in parts, each on one slot, all in one round; `unite` makes its answer."""
    rounds = Rounds([Count(INCR, A, B, A + "2")], Map(a="one", b="two"))

    sent = turn(rounds, one=[2], two=[1])

    assert {"one": [(A, A + "2")], "two": [(B,)]} == sent
    assert [3] == rounds.answers()
    assert [] == rounds.undo


def test_divided_on_one_node() -> None:
    """Two slots of one node are two parts: a script may touch keys of one slot only."""
    rounds = Rounds([Count(INCR, A, B)], Map(a="one", b="one"))

    assert {"one": [(A,), (B,)]} == turn(rounds, one=[1, 1])


@pytest.mark.parametrize("bad", [0, StoreUnavailable("timeout", "late"), ResponseError("OOM full")])
def test_undone(bad: Any) -> None:
    """Where a part refused, failed or is missing, what the others did is to be undone."""
    rounds = Rounds([Count(INCR, A, B), Lua(INCR, C)], Map(a="one", b="two", c="one"))
    turn(rounds, one=[1, 5], two=bad if isinstance(bad, StoreUnavailable) else [bad])

    answer, right = rounds.answers()

    assert 5 == right
    assert answer == 0 or isinstance(answer, OperationFailed)
    assert [(UNCOUNT, (A,))] == [(operation.script, tuple(operation.keys)) for operation in rounds.undo]


def test_undone_although_there_is_no_answer() -> None:
    """The whole may be unavailable while a part did run: that is undone too."""
    rounds = Rounds([Count(INCR, A, B)], Map(a="one", b="two"))
    turn(rounds, one=[1], two=StoreUnavailable("timeout", "late"))

    with pytest.raises(StoreUnavailable):
        rounds.answers()

    assert [(A,)] == [tuple(operation.keys) for operation in rounds.undo]


def test_a_slot_on_the_move() -> None:
    """Keys of one slot that lie on two nodes for a moment are reached one by one: the longest way that there is."""
    rounds = Rounds([Count(INCR, A, A + "2")], Map(a="old"))

    turn(rounds, old=[moved(A, "one")])
    turn(rounds, one=[ask(A, "two")])
    turn(rounds, two=[TRYAGAIN])
    assert {"old": [(A,), (A + "2",)]} == turn(rounds, old=[1, ask(A, "two")])
    assert {"two": [(A + "2",)]} == turn(rounds, two=[1])

    assert rounds.over
    assert [2] == rounds.answers()


def test_a_slot_on_the_move_within_a_division() -> None:
    """The parts of a part are united before the parts of the whole, and what both did in vain is undone."""
    rounds = Rounds([Count(INCR, A, A + "2", B)], Map(a="one", b="two"))

    turn(rounds, one=[TRYAGAIN], two=[1])
    assert {"one": [(A,), (A + "2",)]} == turn(rounds, one=[1, 0])

    assert [0] == rounds.answers()
    assert [(A,), (B,)] == [tuple(operation.keys) for operation in rounds.undo]


@pytest.mark.parametrize("operation", [Lua(INCR, A, A + "2"), Count(INCR, A)])
def test_a_slot_on_the_move_that_cannot_be_helped(operation: Operation) -> None:
    """What cannot be divided fails until its slot has moved."""
    rounds = Rounds([operation], Map(a="one"))

    turn(rounds, one=[TRYAGAIN])

    assert rounds.over
    assert "test.incr: Multiple keys request during rehashing of slot" == str(rounds.answers()[0])


def test_divide_and_unite_that_raise() -> None:
    """They fail their operation alone."""

    class Wrong(Count):
        def divide(self, place: Callable[[str], Hashable]) -> Sequence[Operation]:
            raise ValueError("no")

    class Disunited(Count):
        def unite(self, parts: Sequence[Operation], answers: Sequence[Any]) -> tuple[Any, Sequence[Operation]]:
            raise ValueError("never")

    rounds = Rounds([Wrong(INCR, A, B), Disunited(INCR, A, B), Lua(INCR, A)], Map(a="one", b="one"))
    turn(rounds, one=[1, 2, 3])

    first, second, third = rounds.answers()

    assert "test.incr: it could not be divided: ValueError('no')" == str(first)
    assert "test.incr: the answers of its parts could not be united: ValueError('never')" == str(second)
    assert 3 == third


def test_parts_that_lie_in_several_slots_still() -> None:
    """They are not divided any further."""

    class Clumsy(Count):
        def divide(self, place: Callable[[str], Hashable]) -> Sequence[Operation]:
            return [Count(INCR, A, B), Count(INCR, C)]

    rounds = Rounds([Clumsy(INCR, A, B, C)], Map(a="one", b="one", c="one"))

    assert {"one": [(C,)]} == turn(rounds, one=[1])
    assert "test.incr: its keys lie in 2 slots" in str(rounds.answers()[0])


SLOTS_REPLY = [
    [0, 5000, [b"10.0.0.1", 7000, b"id", []], [b"10.0.0.2", 7001, b"id2", []]],
    [5001, 16383, [b"", 7002, b"id3", []], [b"?", 7003, b"id4", []], [None, 7004]],
]


def test_views() -> None:
    """A node's view: slots and replicas; a host that it leaves out is the one that was asked."""
    info = b"cluster_state:fail\r\ncluster_current_epoch:7\r\n"

    view = read_view(SLOTS_REPLY, info, asked="here")

    assert ((0, 5000, ("10.0.0.1", 7000)), (5001, 16383, ("here", 7002))) == view.ranges
    assert {("10.0.0.2", 7001), ("here", 7003), ("here", 7004)} == view.replicas
    assert (False, 7) == (view.ok, view.epoch)
    assert read_view(SLOTS_REPLY, b"", asked="here").ok


@pytest.mark.parametrize(
    "reply",
    [None, 5, [5], [[0, 1]], [[0, 1, [b"h"]]], [["x", 1, [b"h", 1]]], [[0, 20000, [b"h", 1]]], [[0, 1, [b"\xff", 1]]]],
)
def test_views_that_are_nonsense(reply: Any) -> None:
    """They are refused as a whole."""
    with pytest.raises(ValueError, match="CLUSTER SLOTS"):
        read_view(reply, b"", asked="here")
