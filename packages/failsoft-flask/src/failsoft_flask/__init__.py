"""Failsoft for Flask. Decorators, errors and events are in `failsoft`, the same for every framework."""

from failsoft_flask.auth import login, logout, principal
from failsoft_flask.extension import Failsoft
from failsoft_flask.inspect import audit, list_routes

__all__ = ["Failsoft", "audit", "list_routes", "login", "logout", "principal"]
