"""What a view is called and where it is written: for people, and the name as a part of keys.

A class-based view that was made a function (``as_view``, REST framework's ``@api_view``) has the code and the name of its framework's
function. So it is called after its class, and found where that is written.
"""

import functools
import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["line_of", "place_of"]


def place_of(function: Any) -> str:
    """Module and qualified name of `function`, or of the class that it was made of."""
    cls = _class_of(function)
    if cls is not None:
        return _name(cls)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or '?'}.{name}"


def line_of(target: Any) -> str:
    """File and line of a function or a class; or what else there is to say of it."""
    cls = target if isinstance(target, type) else _class_of(target)
    if cls is not None:
        return _line_of_class(cls)
    innermost = _unwrapped(target)
    cls = _class_of(innermost)
    if cls is not None:
        return _line_of_class(cls)
    code = getattr(innermost, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(innermost)


def _class_of(function: Any) -> type | None:
    """The class that `function` was made of, or to an instance of which it is bound by a ``partial``: Django's ``method_decorator``."""
    if isinstance(function, functools.partial):
        bound = getattr(function.func, "__self__", None)
        return None if bound is None or isinstance(bound, type) else type(bound)
    found = getattr(function, "cls", None) or getattr(function, "view_class", None)
    return found if isinstance(found, type) else None


def _name(cls: type) -> str:
    # REST framework gives the class that it makes the name and the module of the function, and no qualified name.
    own = cls.__qualname__.rpartition(".")[2] == cls.__name__
    return f"{cls.__module__}.{cls.__qualname__ if own else cls.__name__}"


_lines: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def _line_of_class(cls: type) -> str:
    found = _lines.get(cls)  # Django's ``method_decorator`` decorates anew with each request
    if found is None:
        found = _lines[cls] = _look_up(cls)
    return found


def _look_up(cls: type) -> str:
    """Where it is written, or at least its first function; its name where there is neither."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return _name(cls)
    lines = [code.co_firstlineno for code in _codes(cls) if os.path.abspath(code.co_filename) == file]
    line = vars(cls).get("__firstlineno__", min(lines, default=None))  # since Python 3.13
    return _name(cls) if line is None else f"{file}:{line}"


def _codes(cls: type) -> Iterator[Any]:
    for value in vars(cls).values():
        # The function behind REST framework's ``@api_view`` is in the closure of the methods that it makes.
        for one in (
            value,
            *(cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _is_full(cell)),
        ):
            if inspect.isfunction(one):
                yield getattr(_unwrapped(one), "__code__", one.__code__)  # what is wrapped need be no function


def _unwrapped(function: Any) -> Any:
    try:
        return inspect.unwrap(function)
    except ValueError:  # it wraps itself
        return function


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # reading it is the question
    except ValueError:
        return False
    return True
