"""Calling decorated functions where no request is being served."""

from contextlib import AbstractContextManager

from failsoft.exchange.policy import allow_outside_request

__all__ = ["outside_request"]


def outside_request() -> AbstractContextManager[None]:
    """Within, decorated functions may be called outside a request; nothing is enforced then.

    Without it such a call raises `failsoft.OutsideRequest`, because in production it means that the middleware is
    missing. It holds for the whole process, and within requests changes nothing. To allow it everywhere, set
    ``outside_request="allow"``.

    Example:
        >>> with outside_request():
        ...     response = view(request)
    """
    return allow_outside_request()
