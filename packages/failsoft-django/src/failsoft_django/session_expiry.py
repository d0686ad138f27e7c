"""How long a session lives by what ``set_expiry`` was told, and whether the browser keeps its cookie as long.

A number is how long the session lives unseen, in every framework; a moment, likewise until then, and Django reads nothing of it
afterwards; 0 is until the browser is closed, in every framework too; None as the settings say. `session_absolute` bounds them all.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings as django_settings
from django.utils import timezone

from failsoft.sessions.record import stored_name
from failsoft.sessions.session import Session
from failsoft_django.session_view import NAMESPACE

__all__ = ["EXPIRY", "expire_after", "is_over", "persists"]

EXPIRY: Final = stored_name("_session_expiry", NAMESPACE)
"""What ``set_expiry`` was told."""


def is_over(session: Session) -> bool:
    """Whether the moment has come that ``set_expiry`` was told."""
    moment = session.peek(EXPIRY)
    return isinstance(moment, str) and _is_past(moment)


def _is_past(moment: str) -> bool:
    try:
        then, now = datetime.fromisoformat(moment), timezone.now()
        if timezone.is_aware(then) != timezone.is_aware(now):  # USE_TZ was another then
            then = timezone.make_naive(then) if timezone.is_aware(then) else timezone.make_aware(then)
    except ValueError:
        return False
    return then <= now


def expire_after(session: Session, value: datetime | timedelta | float | None, before: Any) -> None:
    """Let `session` live as ``set_expiry`` was told: `value`, and `before` that, as it is stored."""
    if isinstance(value, datetime):
        value = value - timezone.now()
    if isinstance(value, timedelta):
        value = min(value.total_seconds(), session.service.lifetime / 1000)
        session.set_idle(max(value, 0.001))
    elif value:
        session.set_idle(value)
    elif before:
        session.set_idle(None)
    if value is not None or before is not None:
        session.keep(None if value is None else value != 0)
    session.reissue = True


def persists(session: Session) -> bool:
    """Whether the browser is to keep the cookie when it is closed."""
    if (kept := session.kept) is not None:
        return kept
    # Nobody has said so; or another engine was told, whose session was carried over.
    expiry = session.peek(EXPIRY)
    at_close = django_settings.SESSION_EXPIRE_AT_BROWSER_CLOSE if expiry is None else expiry == 0
    return not at_close
