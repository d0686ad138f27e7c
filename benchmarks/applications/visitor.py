"""What a session holds in the benchmarks: about one kilobyte of JSON, as a shop would keep it."""

from collections.abc import MutableMapping
from typing import Any

__all__ = ["CONTENT", "SECRET", "act", "shown"]

SECRET = "benchmarks-0123456789abcdef-0123456789abcdef"

CONTENT: dict[str, Any] = {
    "user_id": 42,
    "name": "Ada Lovelace",
    "email": "ada.lovelace@analytical-engine.example",
    "roles": ["editor", "reviewer"],
    "csrf": "b7f3a1c09d5e4f62a8c1d0e9f7b6a5c4",
    "cart": [
        {"sku": f"ENGINE-{number:04}", "title": f"Part {number} of the engine", "count": number, "price": "12.50"}
        for number in range(1, 7)
    ],
    "address": {"street": "12 St James's Square", "city": "London", "code": "SW1Y 4JH", "country": "GB"},
    "preferences": {"language": "en", "currency": "GBP", "theme": "dark", "news": False, "page": 50},
    "visited": ["/engines", "/engines/1", "/engines/1/parts", "/cart", "/engines/2"],
    "seen": 1_700_000_000,
}


def act(session: MutableMapping[str, Any], state: str) -> None:
    """What a view does with its session."""
    if state == "anonymous":
        assert session.get("user_id") is None
    elif state == "read":
        assert session["user_id"] == 42
        assert len(session["cart"]) == 6
    elif state == "write":
        session["seen"] = session["seen"] + 1


def shown(session: MutableMapping[str, Any]) -> str:
    """What tells whether a session was written."""
    return str(session["seen"])
