"""What the servers of the demonstration serve: one of the example applications, and with each answer the process that gave it.

Two processes answer on each port. Only if each says who it is can the demonstration say that both of them did something.
"""

import gc
import os
from importlib import import_module
from typing import Any

PROGRAM = "DEMO_PROGRAM"
"""The environment variable that names the application, as module:attribute."""

FIELD = "X-Worker"


def program() -> Any:
    module, _, attribute = os.environ[PROGRAM].partition(":")
    # A third of the time to start and to end would go into looking for garbage among modules, which are none.
    gc.disable()
    application = getattr(import_module(module), attribute)
    gc.freeze()
    gc.enable()
    return application


def wsgi() -> Any:
    application = program()

    def served(environ: Any, start_response: Any) -> Any:
        def start(status: str, fields: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*fields, (FIELD, str(os.getpid()))], *rest)

        return application(environ, start)

    return served


def asgi() -> Any:
    application = program()

    async def served(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (FIELD.lower().encode(), b"%d" % os.getpid())]}
            await send(message)

        await application(scope, receive, tell)

    return served
