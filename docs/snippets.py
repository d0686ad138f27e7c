"""Writes programs that the tests run into the pages that name them, so that a page can be read as it is. Run: make pages

A program stands in a page under the comment that says where it comes from: a file, or a section of one.

    <!-- examples/limits.py:burst -->
    ```python
    ...
    ```

A section begins after a line ``# start: burst`` and ends before ``# end: burst``.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parent

PROGRAM = re.compile(
    r"^(?P<comment>(?P<indent> *)<!-- (?P<source>[\w/.-]+\.py(:\w+)?) -->)\n"
    r"(?P=indent)```python\n.*?^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"^ *# (start|end): (?P<section>\w+)\n", re.MULTILINE)


def program(source: str) -> str:
    """The text of a file or, after a colon, of a section of it."""
    file, _, section = source.partition(":")
    text = (DOCS.parent / file).read_text()
    if section:
        bounds = [mark for mark in _MARK.finditer(text) if mark["section"] == section]
        if len(bounds) != 2:
            raise SystemExit(f"{file} has no section {section!r}")
        text = text[bounds[0].end() : bounds[1].start()]
    return _MARK.sub("", text)


def written(text: str) -> str:
    """A page with its programs as they are now."""

    def renewed(found: re.Match[str]) -> str:
        lines = [found["comment"].lstrip(), "```python", *program(found["source"]).rstrip().splitlines(), "```"]
        return "\n".join(found["indent"] + line if line else "" for line in lines)

    return PROGRAM.sub(renewed, text)


if __name__ == "__main__":
    for page in DOCS.rglob("*.md"):
        before = page.read_text()
        if (after := written(before)) != before:
            page.write_text(after)
