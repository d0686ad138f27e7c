"""Any text that can be encoded, for properties.

What `st.text()` gives, too; but for it Hypothesis makes a table of what UTF-8 can encode, which takes two seconds of each Python's tests.
"""

from hypothesis import strategies as st

__all__ = ["any_text"]

_ENCODABLE = st.characters(exclude_categories=("Cs",))


def any_text(*, max_size: int | None = None) -> st.SearchStrategy[str]:
    """Text of up to so many characters, without lone surrogates."""
    return st.text(_ENCODABLE, max_size=max_size)
