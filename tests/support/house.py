"""The packages of the core, and which of them import which, read from the import statements.

    python -m tests.support.house

prints the floors, the top one first, and every import that runs up or in a circle. Imports inside functions and those for
type checking count as well.
"""

import ast
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = "smolora_core"


@cache
def modules() -> dict[str, Path]:
    """Find the modules of the core by their dotted names."""
    tracked = subprocess.run(["git", "ls-files", CORE], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = (Path(name) for name in tracked if name.endswith(".py") and (ROOT / name).exists())
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__"): ROOT / file for file in files}


def imports(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the core that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from inside & known.keys() or {node.module}


def room_of(module: str) -> str:
    """Name the room of a module: its folder below the core, or itself where it stands at the top."""
    file = modules()[module]
    parts = file.relative_to(ROOT / CORE).parts
    return "/".join(parts[:-1]) or parts[0].removesuffix(".py")


def arrows() -> dict[str, dict[str, set[str]]]:
    """Say which room imports which, and in which modules."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for module, file in modules().items():
        here = room_of(module)
        found[here]
        for other in imports(file, modules()):
            if (there := room_of(other)) != here:
                found[here][there].add(f"{module} -> {other}")
    return found


def floors(graph: Mapping[str, Mapping[str, set[str]]]) -> list[list[str]]:
    """Put each room on the floor above all that it imports; what stands in a circle is left out."""
    left, placed, found = set(graph), set[str](), list[list[str]]()
    while ready := sorted(room for room in left if set(graph[room]) <= placed):
        found.append(ready)
        placed.update(ready)
        left.difference_update(ready)
    return found


def main() -> None:
    """Print the floors."""
    graph = arrows()
    found = floors(graph)
    for number, rooms in reversed(list(enumerate(found, start=1))):
        print(f"floor {number:>2}  {'  '.join(rooms)}")
    placed = {room for rooms in found for room in rooms}
    print(f"{len([room for room in graph if (ROOT / CORE / room).is_dir()])} packages")
    for room in sorted(set(graph) - placed):
        for other, lines in sorted(graph[room].items()):
            if other not in placed:
                print(f"circle: {room} imports {other}: {', '.join(sorted(lines))}")


if __name__ == "__main__":
    main()
