"""The child process of one case: ``python -m benchmarks.worker ORDER``.

It reads orders from standard input and answers on standard output, a JSON object to a line each:

- ``{"run": n, "blocks": b, "at_once": c}``: b blocks of n requests, c at a time; nanoseconds of CPU and of time per
  request, for each block.
- ``{"one": true}``: one request; its status, milliseconds, ``Degraded`` field, error, and how long the event loop stood
  still meanwhile.
- ``{"hops": n}``: how many changes of threads n requests make.

CPU is user and system time of this process, threads in the background included, the server not.
"""

import asyncio
import gc
import inspect
import json
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.applications import application, build
from benchmarks.applications.clients import cookies, read
from benchmarks.cases import FLOOR, FRAMEWORKS, NAME, SIGNED, Case, Place

__all__: list[str] = []

_WARM_UP = 50
_TRIES = 1000
_PAUSE = 0.02
_RESOLVER = 5.0
"""Seconds until a resolver gives up: the default of resolv.conf for one try."""

Order = dict[str, Any]


def _tell(answer: Order) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _check(case: Case, answer: Any) -> None:
    """The case does what it is named for, or its figures mean nothing."""
    if case.framework in ("call", "async call"):
        return
    status, headers, body = read(answer)
    assert (status, body) == (200, b"ok"), (status, body[:500])
    expected = case.ours and case.limits > 0 and case.option != "no headers"
    assert not expected or headers.get("ratelimit", "").count(";r=") == case.limits, headers
    if case.package in ("flask-limiter", "slowapi"):
        assert ("x-ratelimit-limit" in headers) == (case.option != "no headers"), headers
    assert "degraded" not in headers, headers
    if case.session and (case.ours or case.package == FLOOR):
        used = case.session != "untouched"
        assert ("cookie" in headers.get("vary", "").lower()) == used, headers
        assert ("set-cookie" in headers) == (headers.get("cache-control") == "private") == (case.session == "write"), (
            headers
        )


def _has_session(case: Case) -> bool:
    return case.session not in ("", "anonymous") and case.framework in FRAMEWORKS


def _cookie(case: Case, begun: Any) -> str:
    """What the browser sends from now on, after the answer of the view that begins a session."""
    if not _has_session(case):
        return ""
    cookie = cookies(begun)
    assert cookie, read(begun)
    return cookie


def _writes(case: Case) -> bool:
    """Whether what it writes is in a store, and not in a cookie that comes back as it was."""
    return case.session == "write" and _has_session(case) and case.package != SIGNED


def _check_writes(answers: list[Any]) -> None:
    """One write, between two looks."""
    before, _, after = (read(answer)[2] for answer in answers)
    assert int(after) == int(before) + 1, (before, after)


def _degraded(answer: Any) -> tuple[int, str]:
    status, headers, _ = read(answer)
    return status, headers.get("degraded", "")


def _unsettled(case: Case, answer: Any) -> bool:
    """Whether the store has not been reached yet: on a busy machine a connection may take longer than a request waits."""
    return case.ours and case.framework in FRAMEWORKS and "degraded" in read(answer)[1]


def _serve(case: Case, made: Any) -> None:
    first = build(case, made, "/begin" if _has_session(case) else "/")
    for _ in range(_TRIES):
        if not _unsettled(case, answer := first()):
            break
        time.sleep(_PAUSE)
    cookie = _cookie(case, answer)
    call = build(case, made, cookie=cookie)
    for _ in range(_WARM_UP):
        answer = call()
    _check(case, answer)
    if _writes(case):
        _check_writes([build(case, made, "/show", cookie)(), call(), build(case, made, "/show", cookie)()])
    _tell({"ready": case.name})
    for line in sys.stdin:
        order = json.loads(line)
        if "one" in order:
            _tell(_one(call))
        else:
            _tell(_blocks(call, order["run"], order["blocks"]))


def _blocks(call: Callable[[], Any], n: int, blocks: int) -> Order:
    cpu: list[float] = []
    wall: list[float] = []
    requests = range(n)
    for _ in range(blocks):
        began, used = time.perf_counter_ns(), time.process_time_ns()
        for _ in requests:
            call()
        cpu.append((time.process_time_ns() - used) / n)
        wall.append((time.perf_counter_ns() - began) / n)
    return {"cpu": cpu, "wall": wall}


def _one(call: Callable[[], Any]) -> Order:
    began = time.perf_counter()
    status: int | str
    try:
        status, degraded = _degraded(call())
        error = ""
    except Exception as raised:
        status, degraded, error = "raised", "", type(raised).__name__
    return {
        "status": status,
        "ms": (time.perf_counter() - began) * 1e3,
        "degraded": degraded,
        "error": error,
        "stall": None,
    }


async def _serve_async(case: Case, place: Place) -> None:
    made = application(case, place)
    if inspect.isawaitable(made):
        made = await made
    first = build(case, made, "/begin" if _has_session(case) else "/")
    for _ in range(_TRIES):
        if not _unsettled(case, answer := await first()):
            break
        await asyncio.sleep(_PAUSE)
    cookie = _cookie(case, answer)
    call = build(case, made, cookie=cookie)
    for _ in range(_WARM_UP):
        answer = await call()
    _check(case, answer)
    if _writes(case):
        show = build(case, made, "/show", cookie)
        _check_writes([await show(), await call(), await show()])
    _tell({"ready": case.name})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if "one" in order:
            _tell(await _one_async(call))
        elif "hops" in order:
            _tell({"hops": await _hops(call, order["hops"])})
        else:
            _tell(await _blocks_async(call, order["run"], order["blocks"], order["at_once"]))


async def _blocks_async(call: Callable[[], Awaitable[Any]], n: int, blocks: int, at_once: int) -> Order:
    cpu: list[float] = []
    wall: list[float] = []

    async def share(requests: range) -> None:
        for _ in requests:
            await call()

    each = range(max(1, n // at_once))
    n = len(each) * at_once
    for _ in range(blocks):
        began, used = time.perf_counter_ns(), time.process_time_ns()
        if at_once == 1:
            await share(each)
        else:
            await asyncio.gather(*[share(each) for _ in range(at_once)])
        cpu.append((time.process_time_ns() - used) / n)
        wall.append((time.perf_counter_ns() - began) / n)
    return {"cpu": cpu, "wall": wall}


async def _one_async(call: Callable[[], Awaitable[Any]]) -> Order:
    loop = asyncio.get_running_loop()
    worst = 0.0
    every = 0.002

    async def heart() -> None:
        nonlocal worst
        while True:
            before = loop.time()
            await asyncio.sleep(every)
            worst = max(worst, loop.time() - before - every)

    beating = loop.create_task(heart())
    await asyncio.sleep(2 * every)
    worst = 0.0
    began = time.perf_counter()
    status: int | str
    try:
        status, degraded = _degraded(await call())
        error = ""
    except Exception as raised:
        status, degraded, error = "raised", "", type(raised).__name__
    ms = (time.perf_counter() - began) * 1e3
    await asyncio.sleep(2 * every)
    beating.cancel()
    return {"status": status, "ms": ms, "degraded": degraded, "error": error, "stall": worst * 1e3}


async def _hops(call: Callable[[], Awaitable[Any]], n: int) -> int:
    """Changes of threads that `n` requests make: asgiref and anyio go through the loop's executors."""
    loop = asyncio.get_running_loop()
    counted = 0
    original = loop.run_in_executor

    def counting(*args: Any) -> Any:
        nonlocal counted
        counted += 1
        return original(*args)

    loop.run_in_executor = counting  # type: ignore[method-assign, assignment]  # to count what passes
    try:
        for _ in range(n):
            await call()
    finally:
        loop.run_in_executor = original  # type: ignore[method-assign]  # as it was
    return counted


def _resolve_name(place: Place) -> None:
    """Have `NAME` resolved; while the place is silent, only when it no longer is, or never."""
    usual = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != NAME:
            return usual(host, *args, **kwargs)
        end = time.monotonic() + _RESOLVER
        while os.path.exists(place.silent):
            if time.monotonic() > end:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            time.sleep(0.01)
        return usual("127.0.0.1", *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


def _main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    order = json.loads(sys.argv[1])
    case, place = Case(**order["case"]), Place(**order["place"])
    if place.host == NAME:
        _resolve_name(place)
    if case.framework == "django-asgi" and hasattr(os, "sched_setaffinity"):
        # Its handler hands each request to threads: which CPU they wake on would tell more than any package does.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gc.collect()
    if case.asynchronous:
        asyncio.run(_serve_async(case, place))
    else:
        _serve(case, application(case, place))


if __name__ == "__main__":
    _main()
