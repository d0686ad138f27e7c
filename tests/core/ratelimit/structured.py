"""A parser of Structured Field lists (RFC 9651, section 4.2), as far as RateLimit fields need it, and strict about that."""

import re
from typing import NamedTuple

__all__ = ["Member", "parse_list"]

_STRING = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_KEY = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_INTEGER = re.compile(r"-?[0-9]{1,15}(?![0-9.])")
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")


class Member(NamedTuple):
    """An item of a list: its bare value and its parameters, in order."""

    value: str | int
    parameters: dict[str, str | int | bool]


def parse_list(text: str) -> list[Member]:
    """The members of a list. Raises `ValueError` for whatever the grammar does not allow."""
    members: list[Member] = []
    at = 0
    while True:
        value, at = _bare(text, at)
        parameters: dict[str, str | int | bool] = {}
        while text[at : at + 1] == ";":
            at += 1
            while text[at : at + 1] == " ":
                at += 1
            key = _KEY.match(text, at)
            if key is None:
                raise ValueError(f"no key at {at} in {text!r}")
            at = key.end()
            parameters[key[0]] = True
            if text[at : at + 1] == "=":
                parameters[key[0]], at = _bare(text, at + 1)
        members.append(Member(value, parameters))
        rest = text[at:].lstrip(" \t")
        if not rest:
            return members
        if not rest.startswith(","):
            raise ValueError(f"no comma at {at} in {text!r}")
        at = len(text) - len(rest[1:].lstrip(" \t"))


def _bare(text: str, at: int) -> tuple[str | int, int]:
    for pattern in (_STRING, _INTEGER, _TOKEN):
        if match := pattern.match(text, at):
            if pattern is _INTEGER:
                return int(match[0]), match.end()
            return (re.sub(r"\\(.)", r"\1", match[1]) if pattern is _STRING else match[0]), match.end()
    raise ValueError(f"no item at {at} in {text!r}")
