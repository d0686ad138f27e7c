"""Problem details (RFC 9457): one description of a refusal, written in the form that the client prefers.

JSON unless the client's Accept header puts HTML or plain text before it; browsers do, API clients and ``*/*`` do not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from typing import Any, Literal

__all__ = ["Form", "Problem", "preferred_form", "render"]

Form = Literal["json", "html", "text"]

_MEDIA_TYPES: Mapping[Form, str] = {
    "json": "application/problem+json",
    "html": "text/html; charset=utf-8",
    "text": "text/plain; charset=utf-8",
}

# What each form answers to, with how exactly the range names it: an exact type says more than a wildcard.
_RANGES: Mapping[str, tuple[Form, ...]] = {
    "application/problem+json": ("json",),
    "application/json": ("json",),
    "application/*": ("json",),
    "text/html": ("html",),
    "application/xhtml+xml": ("html",),
    "text/plain": ("text",),
    "text/*": ("html", "text"),
    "*/*": ("json", "html", "text"),
}

_ACCEPT_BYTES = 1024
"""An Accept header longer than this is cut: no real client sends one, and parsing must not be an attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A refusal, as RFC 9457 describes one.

    Args:
        type: a URI that names the kind of problem.
        title: the kind of problem in a few words; the same each time.
        status: the HTTP status, 400 to 599.
        detail: what happened this time; no secret, no internals.
        members: further members of the object, such as ``violated-policies``.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    members: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The members of the JSON object."""
        body: dict[str, Any] = {"type": self.type, "title": self.title, "status": self.status}
        if self.detail:
            body["detail"] = self.detail
        return body | dict(self.members)


@lru_cache(
    maxsize=512
)  # a flood of refused requests has few kinds of clients; without it half a refusal's time goes here
def preferred_form(accept: str | None) -> Form:
    """The form that an Accept header (RFC 9110, section 12.5.1) likes best; JSON where it does not care."""
    if not accept or accept == "*/*":
        return "json"
    best: dict[Form, tuple[int, float, int]] = {}
    for number, part in enumerate(accept[:_ACCEPT_BYTES].split(",")):
        media, _, parameters = part.partition(";")
        forms = _RANGES.get(media.strip().lower())
        if forms is None:
            continue
        wildcards = media.count("*")
        # "Media ranges can be overridden by more specific media ranges": an exact type's quality beats a wildcard's.
        rank = (-wildcards, _quality(parameters), -1000 if wildcards else -number)
        for form in forms:
            if form not in best or rank > best[form]:
                best[form] = rank
    acceptable = [form for form, (_, quality, _) in best.items() if quality > 0]
    order: Sequence[Form] = ("json", "html", "text")
    return max(acceptable, key=lambda form: (*best[form][1:], -order.index(form)), default="json")


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0


def render(problem: Problem, form: Form) -> tuple[str, bytes]:
    """The Content-Type and the body that tell of `problem` in `form`."""
    if problem.members:
        return _written(problem, form)
    return _known(problem.type, problem.title, problem.status, problem.detail, form)


@lru_cache(maxsize=64)  # a process that is overloaded says the same few things all the time
def _known(kind: str, title: str, status: int, detail: str, form: Form) -> tuple[str, bytes]:
    return _written(Problem(type=kind, title=title, status=status, detail=detail), form)


def _written(problem: Problem, form: Form) -> tuple[str, bytes]:
    if form == "json":
        text = json.dumps(problem.as_dict())
    elif form == "html":
        title, detail = escape(problem.title), escape(problem.detail)
        text = (
            f'<!doctype html><html lang="en"><head><title>{problem.status} {title}</title></head>'
            f"<body><h1>{problem.status} {title}</h1><p>{detail}</p></body></html>"
        )
    else:
        text = (
            f"{problem.status} {problem.title}\n{problem.detail}\n"
            if problem.detail
            else f"{problem.status} {problem.title}\n"
        )
    return _MEDIA_TYPES[form], text.encode()
