"""Middleware of all kinds, for tests of what it does to ours."""

from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpResponse, StreamingHttpResponse
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin

from tests.django.harness import Sided

__all__ = ["Answering", "AsyncOnly", "Mixed", "Plain", "SyncOnly", "both_functions", "closed", "plain_function"]

closed: list[str] = []
"""What was closed, by name."""


class SyncOnly(MiddlewareMixin):
    """A class that knows nothing of asynchronous Django."""

    async_capable = False


class AsyncOnly:
    """A class that knows nothing of synchronous Django."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        return await self.get_response(request)


class Plain(Sided):
    """A class for both, with nothing in it."""


class Mixed(MiddlewareMixin):
    """A class for both, by Django's own base."""


@sync_only_middleware
def plain_function(get_response: Any) -> Any:
    """A function, as Django's documentation begins with."""

    def middleware(request: Any) -> Any:
        return get_response(request)

    return middleware


@sync_and_async_middleware
def both_functions(get_response: Any) -> Any:
    """A function for both."""
    if iscoroutinefunction(get_response):

        async def amiddleware(request: Any) -> Any:
            return await get_response(request)

        return amiddleware

    def middleware(request: Any) -> Any:
        return get_response(request)

    return middleware


class _Pieces:
    def __init__(self, name: str) -> None:
        self.name = name

    def __iter__(self) -> Any:
        yield b"piece"

    def close(self) -> None:
        closed.append(self.name)


class Answering(Sided):
    """A class that answers some requests itself, as caches do."""

    def __call__(self, request: Any) -> Any:
        answer: Any = None
        if request.path == "/cached":
            answer = HttpResponse(b"cached", headers={"Access-Control-Allow-Origin": "*"})
        elif request.path == "/streamed":
            answer = StreamingHttpResponse(_Pieces("streamed"))
        if answer is None:
            return self.get_response(request)

        async def aanswer() -> Any:
            return answer

        return aanswer() if iscoroutinefunction(self.get_response) else answer
