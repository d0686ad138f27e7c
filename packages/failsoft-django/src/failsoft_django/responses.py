"""What failsoft says, as Django's responses.

Rules:

- A response has one value for each header name, so what is added to a field that is there is appended to its list.
- Django keeps cookies apart from the header fields.
- An error that Django has made a response of may have a refusal behind it; that refusal is the answer then.
"""

import sys
from collections.abc import AsyncIterator, Container, Iterator, Mapping, Sequence
from functools import lru_cache
from http.cookies import Morsel
from typing import Any, Final

from django.core.signals import got_request_exception
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from failsoft.errors import Rejected
from failsoft.exchange import Exchange
from failsoft.exchange.policy import enter, leave
from failsoft.fields import MERGED, merge
from failsoft.runtime import Runtime, refusal_fields
from failsoft_django.runtime import Renderer
from failsoft_django.translate import STORE

__all__ = ["add_fields", "add_settled", "failed", "keep_current", "refusal", "replace"]

_BEHIND: Final = "_failsoft_refusal"
"""On a request: the refusal behind the error that Django has last made a response of, or None."""


def refusal(runtime: Runtime, renderer: Renderer | None, request: HttpRequest, rejected: Rejected) -> HttpResponseBase:
    """The response to a refused request."""
    if renderer is None:
        status, fields, body = runtime.answer(rejected, request.META.get("HTTP_ACCEPT"))
        return HttpResponse(body, status=status, headers=dict(fields))
    response = renderer(request, rejected)
    for name, value in refusal_fields(rejected):
        response.headers[name] = value
    return response


def replace(response: Any, refused: Any) -> HttpResponseBase:
    """`refused`, ready to take the place of a `response` that is complete: rendered, and closing what that one holds."""
    if not getattr(refused, "is_rendered", True):
        refused = refused.render()
    refused._resource_closers.extend(response._resource_closers)
    for name, value in response.items():
        if name.lower().startswith("access-control-"):  # or else a page from elsewhere could not read the refusal
            refused.headers[name] = value
    if not refused.streaming:
        refused.headers["Content-Length"] = str(len(refused.content))
    found: HttpResponseBase = refused
    return found


def keep_current(response: Any, exchange: Exchange) -> None:
    """Let limited functions that a streamed `response` calls find their request, although it is served by then.

    Only while a piece is being made: between two pieces the thread is the server's. The request is over when the response is closed.
    """
    response._resource_closers.append(exchange.end)
    if getattr(response, "file_to_stream", None) is not None:  # the server may send it by itself
        return
    pieces = response.streaming_content
    response.streaming_content = _apieces(pieces, exchange) if response.is_async else _pieces(pieces, exchange)


def _pieces(pieces: Iterator[bytes], exchange: Exchange) -> Iterator[bytes]:
    while True:
        token = enter(exchange)
        try:
            piece = next(pieces, None)
        finally:
            leave(token)
        if piece is None:
            return
        yield piece


async def _apieces(pieces: AsyncIterator[bytes], exchange: Exchange) -> AsyncIterator[bytes]:
    while True:
        token = enter(exchange)
        try:
            piece = await anext(pieces, None)
        finally:
            leave(token)
        if piece is None:
            return
        yield piece


class _Sent(Morsel[str]):
    """A cookie that is sent as the core has written it, unless somebody changes it before.

    Its attributes are there all the same: Django's test client looks for them, and some middleware changes them. To set each, and to make
    the field of them again, would cost as much as a tenth of what a request with a session costs more than without.

    Args:
        field: the value of a Set-Cookie field.
    """

    # "Partitioned" is an attribute that Python knows since 3.14.
    _reserved = {**Morsel._reserved, "partitioned": "Partitioned"}  # type: ignore[attr-defined]  # noqa: RUF012 - the standard library's
    _flags = Morsel._flags | {"partitioned"}  # type: ignore[attr-defined]  # likewise

    _field: str | None = None  # of the class, because a copy is made without `__init__`

    def __init__(self, field: str) -> None:
        # Not the base's, which sets each attribute by itself.
        pair, _, rest = field.partition("; ")
        name, _, value = pair.partition("=")
        self.set(name, value, value)
        self._attributes = _attributes(rest)
        dict.update(self, self._attributes)
        self._field = field

    def set(self, key: str, val: str, coded_val: str) -> None:
        """Another value was given to it: see the standard library's."""
        self._field = None
        super().set(key, val, coded_val)

    def OutputString(self, attrs: Container[str] | None = None) -> str:
        """What is sent: see the standard library's."""
        if attrs is None and self._field is not None and dict.__eq__(self, self._attributes):
            return self._field
        return super().OutputString(attrs)


@lru_cache(64)  # all cookies of one second that live equally long
def _attributes(text: str) -> Mapping[str, str | bool]:
    found: dict[str, str | bool] = dict.fromkeys(Morsel._reserved, "")  # type: ignore[attr-defined]  # the standard library's
    for attribute in text.split("; ") if text else ():
        key, given, value = attribute.partition("=")
        found[key.lower()] = value if given else True
    return found


def add_fields(response: HttpResponseBase, fields: Sequence[tuple[str, str]]) -> None:
    """Add header fields to `response`."""
    if not fields:
        return
    headers = response.headers
    known = {*map(str.lower, headers)}  # asking the headers for a name that they lack costs 2.5 µs
    for name, value in fields:
        lowered = name.lower()
        if lowered == "set-cookie":
            cookie = _Sent(value)
            response.cookies[cookie.key] = cookie
        elif lowered not in known:
            headers[name] = value
            known.add(lowered)
        elif name in MERGED:
            if headers[name] != value:  # our `SessionMiddleware` may have said the same before
                headers[name] = merge(lowered, headers[name], value)
        else:
            headers[name] = f"{headers[name]}, {value}"


def failed(exchange: Exchange) -> Rejected | None:
    """The refusal that led to the error of which Django has made the response to a request, if one did.

    One that was caught, and has nothing to do with an error that came later, is none of that error's answer.
    """
    return getattr(exchange.facts.request, _BEHIND, None)


@receiver(got_request_exception, dispatch_uid="failsoft_django")
def _behind(*, request: Any = None, **_: Any) -> None:
    """Django is about to answer the error that is being handled."""
    if request is not None:
        setattr(request, _BEHIND, _refusal_in(sys.exception()))


def _refusal_in(error: BaseException | None) -> Rejected | None:
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Rejected):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += [one.__context__, one.__cause__]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
    return None


def add_settled(response: HttpResponseBase, exchange: Exchange, fields: Sequence[tuple[str, str]]) -> None:
    """Add what the settlement gave to `response`, and what the browser is owed for sessions that were saved by hand before."""
    if exchange.accepted and response.status_code in (200, 204):
        response.status_code = 202
    store = exchange.memo.get(STORE)
    if store is not None and store.owed:
        add_fields(response, [("Set-Cookie", cookie) for cookie in store.owed])
    add_fields(response, fields)
