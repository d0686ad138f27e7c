"""Problem documents: which form a client prefers, and that no form can be broken by what it tells."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings

from failsoft import Problem
from failsoft.problem import Form, preferred_form, render
from tests.core.texts import any_text

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/problem+json", "json"),
        ("application/json, text/plain, */*", "json"),
        (BROWSER, "html"),
        ("text/html", "html"),
        ("TEXT/HTML", "html"),
        ("application/xhtml+xml", "html"),
        ("text/plain", "text"),
        ("text/*", "html"),
        ("text/*, text/html;q=0.1", "text"),
        ("text/html;q=0.5, text/plain", "text"),
        ("text/html;q=0.5, application/json;q=0.4", "html"),
        ("text/plain, text/html", "text"),
        ("*/*, text/html;q=0", "json"),
        ("text/html;q=0, */*;q=0.1", "json"),
        ("application/json;q=0, */*", "html"),
        ("application/json;q=0.1, */*;q=0.5", "html"),
        ("image/png", "json"),
        ("text/html;q=0", "json"),
        ("text/html;level=1;q=0.9, text/plain;q=0.8", "html"),
        ("text/html;q=nonsense", "json"),
        ("text/html;q=nan, text/plain;q=0.1", "text"),
        ("text/html;q=inf, text/plain;q=0.1", "text"),
        ("text/html;q=-1, text/plain;q=0.1", "text"),
        (",,;;=,", "json"),
    ],
)
def test_preferred_form(accept: str | None, expected: Form) -> None:
    """The quality decides, a more specific range before a wildcard; JSON where the client does not care."""
    assert expected == preferred_form(accept)


@given(any_text(max_size=3000))
@settings(deadline=None)
def test_any_accept_header_has_a_form(accept: str) -> None:
    """No header that a client can send is an error."""
    assert preferred_form(accept) in ("json", "html", "text")


def test_long_accept_header_is_cut() -> None:
    """What comes after the first kilobyte is not read."""
    assert "json" == preferred_form("x/y," * 1000 + "text/html")


class Text(HTMLParser):
    """The tags and the text of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@given(title=any_text(max_size=40), detail=any_text(max_size=40))
@settings(deadline=None)
def test_forms_say_the_same(title: str, detail: str) -> None:
    """Each form tells the title and the detail, whatever is in them, and makes no markup of it."""
    try:
        title.encode()
        detail.encode()
    except UnicodeEncodeError:
        return  # lone surrogates: not text that we write
    problem = Problem(type="about:blank", title=title, status=429, detail=detail, members={"violated-policies": ["a"]})
    media, body = render(problem, "json")
    document = json.loads(body)
    assert ("application/problem+json", title, detail, 429) == (
        media,
        document["title"],
        document.get("detail", ""),
        document["status"],
    )
    assert ["a"] == document["violated-policies"]
    media, body = render(problem, "html")
    page = Text()
    page.feed(body.decode())
    page.close()
    assert ["html", "head", "title", "body", "h1", "p"] == page.tags
    assert "text/html; charset=utf-8" == media
    media, body = render(problem, "text")
    assert ("text/plain; charset=utf-8", f"429 {title}") == (media, body.decode()[: len(f"429 {title}")])


def test_no_detail() -> None:
    """Without a detail there is none, rather than an empty one."""
    problem = Problem(type="about:blank", title="Forbidden", status=403)
    assert {"type": "about:blank", "title": "Forbidden", "status": 403} == json.loads(render(problem, "json")[1])
    assert b"403 Forbidden\n" == render(problem, "text")[1]
