"""What other libraries' classes take, read from their source: importing them takes seconds."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

__all__ = ["declared_fields"]


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
