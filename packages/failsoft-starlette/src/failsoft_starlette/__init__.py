"""Failsoft for Starlette and FastAPI."""

from failsoft_starlette.middleware import FailsoftMiddleware
from failsoft_starlette.routes import audit, list_routes

__all__ = ["FailsoftMiddleware", "audit", "list_routes"]
