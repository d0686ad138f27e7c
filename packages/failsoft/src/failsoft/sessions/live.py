"""`require_live_session`: views that must not be served from a snapshot."""

from failsoft.exchange.decorators import WithoutArguments

__all__ = ["CONCERN", "LiveSession", "require_live_session"]

CONCERN = "sessions"


class LiveSession(WithoutArguments):
    """The request's session, if it has one, must have come from the store in this request."""

    concern = CONCERN

    def fingerprint(self) -> object:
        """Said twice, it says no more."""
        return CONCERN

    def __repr__(self) -> str:
        return "require_live_session"


require_live_session = LiveSession()
"""Put on a view: while the sessions' store is away, it answers 503 to whoever has a session, even where a snapshot would stand in.

For what a revoked session must not do for as much as `session_snapshot` seconds: changing a password, paying, administration. Who has no
session is let through: asking for a login is the view's business.
"""
