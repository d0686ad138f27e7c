"""Failsoft for Starlette and FastAPI."""

from failsoft_starlette.auth import SessionBackend, login, logout, principal
from failsoft_starlette.middleware import FailsoftMiddleware
from failsoft_starlette.routes import audit, list_routes
from failsoft_starlette.translate import SocketMessage

__all__ = [
    "FailsoftMiddleware",
    "SessionBackend",
    "SocketMessage",
    "audit",
    "list_routes",
    "login",
    "logout",
    "principal",
]
