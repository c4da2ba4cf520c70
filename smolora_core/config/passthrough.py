"""What other libraries' classes take, read from their source: importing them takes seconds."""

import ast
import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from smolora_core.errors import Problem, nearest


def unknown_fields(
    given: Iterable[str],
    where: str,
    package: str,
    file: str,
    name: str,
    *,
    own: Mapping[str, str],
    unusable: Mapping[str, tuple[str, str]],
    renamed: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Check names that are passed on to a class: they must exist, be of use here, and have no key of their own.

    Args:
        given: names.
        where: they were given.
        package: as `declared_fields`.
        file: likewise.
        name: likewise.
        own: our keys for fields that have one.
        unusable: what to say of other fields that cannot be passed on, and what to do instead.
        renamed: what to do instead of names that the class once had.
    """
    known = declared_fields(package, file, name)
    problems = []
    for each in given:
        if each in own:
            problems.append(Problem(f"{each!r} has a key of its own", where=where, hint=f"set {own[each]}"))
        elif each in unusable:
            what, hint = unusable[each]
            problems.append(Problem(f"{each!r} {what}", where=where, hint=hint))
        elif each not in known:
            hint = (renamed or {}).get(each) or nearest(each, known)
            problems.append(Problem(f"{package}.{name} has no {each!r}", where=where, hint=hint))
    return problems


@cache
def declared_fields(package: str, file: str, name: str) -> frozenset[str]:
    """List the annotated fields of a class.

    Args:
        package: an installed one.
        file: within the package.
        name: of the class.
    """
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None
    source = Path(found.origin).parent.joinpath(file).read_text(encoding="utf-8")
    return frozenset(
        field.target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    )
