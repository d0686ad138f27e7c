"""The four distributions agree: one version, compatible pins, types shipped, exports exactly what was meant.

Modules are read, not imported: what a module exports must not depend on what happens to be installed.
"""

import ast
import importlib
import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, run

ADAPTERS = ("failsoft-flask", "failsoft-django", "failsoft-starlette")
FRAMEWORKS = {"flask", "django", "starlette"}
DISTRIBUTIONS = ("failsoft", *ADAPTERS)


def folder(distribution: str) -> Path:
    """The import package of a distribution."""
    return ROOT / "packages" / distribution / "src" / distribution.replace("-", "_")


def project(distribution: str) -> dict[str, Any]:
    """The [project] table of a distribution."""
    text = (ROOT / "packages" / distribution / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["project"]
    return table


def changelog_version() -> str:
    """The version that the changelog's top entry is about."""
    found = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


MODULES = [
    pytest.param(path, id=path.relative_to(folder(distribution).parent).as_posix())
    for distribution in DISTRIBUTIONS
    for path in sorted(folder(distribution).rglob("*.py"))
]


@cache
def parsed(path: Path) -> ast.Module:
    """A module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import, those under `if` and `try` included."""
    for statement in body:
        yield statement
        match statement:
            case ast.If() | ast.Try():
                yield from top_level(statement.body)
                yield from top_level(statement.orelse)
                for handler in getattr(statement, "handlers", ()):
                    yield from top_level(handler.body)


def targets(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement defines, imports left out."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=assigned):
            for target in assigned:
                parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
                yield from (part.id for part in parts if isinstance(part, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def imported(statement: ast.stmt) -> Iterator[str]:
    """The names that an import statement binds."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield (alias.asname or alias.name).partition(".")[0]


def exports(tree: ast.Module) -> list[str] | None:
    """The literal value of `__all__`, or None where there is none."""
    for statement in tree.body:
        if "__all__" in targets(statement):
            assert isinstance(statement, ast.Assign | ast.AnnAssign)
            assert statement.value is not None
            names: list[str] = ast.literal_eval(statement.value)
            return names
    return None


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that ruff's RUF022 keeps."""
    if len(name) > 1 and name.isupper():
        return 0, name
    return (1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_version_is_the_one_of_the_changelog(distribution: str) -> None:
    """Each pyproject.toml carries the version of the changelog's top entry."""
    assert changelog_version() == project(distribution)["version"]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_version_is_the_one_installed(distribution: str) -> None:
    """What is installed was built from these sources and not left over from another version."""
    assert changelog_version() == importlib.metadata.version(distribution)


def test_version_attribute() -> None:
    """`failsoft.__version__` is the version of the distributions."""
    assert changelog_version() == importlib.import_module("failsoft").__version__


@pytest.mark.parametrize("distribution", ADAPTERS)
def test_adapter_needs_no_other_framework(distribution: str) -> None:
    """Where the other frameworks and their adapters cannot be imported, every module of this one can."""
    own = distribution.removeprefix("failsoft-")
    others = {name for one in FRAMEWORKS - {own} for name in (one, f"failsoft_{one}")}
    modules = [
        ".".join(path.relative_to(folder(distribution).parent).with_suffix("").parts)
        for path in sorted(folder(distribution).rglob("*.py"))
    ]
    done = run(
        f"import sys; sys.modules.update(dict.fromkeys({sorted(others)}))\n"
        + "".join(f"import {name}\n" for name in modules)
    )
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("distribution", ADAPTERS)
def test_adapter_pins_its_core(distribution: str) -> None:
    """An adapter takes the core of its own minor version, in any patch level."""
    major, minor, _ = changelog_version().split(".")
    pins = [entry for entry in project(distribution)["dependencies"] if re.match(r"failsoft\b", entry)]
    assert [f"failsoft ~= {major}.{minor}.0"] == pins


@pytest.mark.parametrize("key", ["requires-python", "license", "authors"])
def test_distributions_agree(key: str) -> None:
    """The four distributions say the same of what concerns them all."""
    first, *others = [project(distribution)[key] for distribution in DISTRIBUTIONS]
    assert [first] * len(others) == others


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_types_are_shipped(distribution: str) -> None:
    """Each import package is marked as typed (PEP 561)."""
    assert (folder(distribution) / "py.typed").is_file()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_license_is_shipped(distribution: str) -> None:
    """Each distribution carries the text of the licence of the repository."""
    expected = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert expected == (ROOT / "packages" / distribution / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MODULES)
def test_exports_are_sorted(path: Path) -> None:
    """`__all__` is sorted and names nothing twice."""
    names = exports(parsed(path)) or []
    assert sorted(set(names), key=order) == names


@pytest.mark.parametrize("path", MODULES)
def test_exports_are_exact(path: Path) -> None:
    """A module exports every public name that it defines, and no name that it does not have."""
    tree = parsed(path)
    statements = list(top_level(tree.body))
    exported = set(exports(tree) or [])
    defined = {name for statement in statements for name in targets(statement)}
    bound = {name for statement in statements for name in imported(statement)}
    # What stands in for an import that failed is still the import's.
    assert set() == {name for name in defined if not name.startswith("_")} - exported - bound
    assert set() == exported - defined - bound


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_public_names_are_exact(distribution: str) -> None:
    """The import package shows its users what `__all__` names, and beyond that only its own modules."""
    package = importlib.import_module(distribution.replace("-", "_"))
    modules = {path.stem for path in folder(distribution).iterdir()}
    public = {name for name in vars(package) if name.isidentifier() and not name.startswith("_")} - modules
    assert set() == public - set(package.__all__)
    assert set() == {name for name in package.__all__ if not hasattr(package, name)}
