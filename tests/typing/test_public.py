"""Uses of the public API that type checkers must accept, with the types that they must find. Read by them, not run."""

from datetime import timedelta
from typing import assert_type

from failsoft import (
    Event,
    LimitDecided,
    Quota,
    RateLimited,
    Rejected,
    SessionConflict,
    SessionEvent,
    SessionTooLarge,
    SessionUnavailable,
    SessionValueError,
    Settings,
    Shed,
    criticality,
    exempt,
    hashed,
    late,
    limit,
    require_live_session,
)
from failsoft.presets import login, submitted


@limit("10/minute; 200 per day", by="user", on_outage="local", methods=["POST"])
def view(number: int, *, text: str = "") -> list[str]:
    return [text] * number


assert_type(view(1, text="a"), list[str])


@criticality("sheddable")
@limit(Quota(amount=10, window=60), by=("ip", "header:X-Api-Key"), cost=lambda request: 2, when=lambda request: True)
@exempt
async def aview(number: int) -> str:
    return str(number)


@require_live_session()
@exempt()
def live(number: int) -> int:
    return number


assert_type(live(1), int)


async def use() -> None:
    assert_type(await aview(1), str)


@login("email", per_client="5/minute", failures=(401,), penalty=None)
@limit("5/second", by=hashed(submitted("email")), messages=True)
def log_in(name: str) -> bool:
    return name == "alice"


assert_type(log_in("alice"), bool)


@limit(lambda request: "5/minute", by=late(lambda user: user))
class View:
    def dispatch(self) -> int:
        return 1


assert_type(View().dispatch(), int)

settings = Settings.from_mapping({"store": "memory://", "deadline": timedelta(milliseconds=50)})
assert_type(settings.deadline, float)


def heard(event: Event) -> bool:
    return isinstance(event, LimitDecided) and event.admitted


def shed(event: Event) -> str | None:
    return event.reason if isinstance(event, Shed) else None


def answer(error: RateLimited) -> int | None:
    refused: Rejected = error
    assert_type(refused.status, int)
    return refused.retry_after


@require_live_session
def pay(amount: int) -> str:
    return str(amount)


assert_type(pay(1), str)


def happened(event: Event) -> str | None:
    return event.subject if isinstance(event, SessionEvent) else None


def unsaved(error: SessionUnavailable | SessionConflict) -> int:
    return error.status


def unfit(error: SessionTooLarge | SessionValueError) -> str:
    as_python: ValueError | TypeError = error
    return str(as_python)
