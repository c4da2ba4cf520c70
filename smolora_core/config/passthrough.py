"""Check the arguments passed through to classes of other libraries, read from their source: importing them takes seconds."""

import ast
import importlib.util
from collections.abc import Collection, Iterable, Mapping
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
    used: Collection[str] | None = None,
) -> list[Problem]:
    """Report the given fields of class `name` in a package's file that do not exist or cannot be passed through.

    `own` maps fields to the config key that sets them, `unusable` to what is wrong and what to do, and `renamed` maps fields
    of earlier versions to what to do. If `used` is given, no other fields can be passed through.
    """
    known = _declared_fields(package, file, name)
    problems = []
    for field in given:
        if field in own:
            problems.append(Problem(f"{field!r} has its own config key", where=where, hint=f"set {own[field]}"))
        elif field in unusable:
            what, hint = unusable[field]
            problems.append(Problem(f"{field!r} {what}", where=where, hint=hint))
        elif field not in known:
            hint = (renamed or {}).get(field) or nearest(field, known)
            problems.append(Problem(f"{package}.{name} has no {field!r}", where=where, hint=hint))
        elif used is not None and field not in used:
            problems.append(Problem(f"{field!r} has no effect here", where=where, hint="remove it"))
    return problems


@cache
def _declared_fields(package: str, file: str, name: str) -> frozenset[str]:
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
