"""Which files the user means by a path, a glob, a list or a folder, and of what kind they are."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from glob import iglob
from pathlib import Path
from typing import Literal

from smolora_core.errors import DatasetError

__all__ = ["KINDS", "FileKind", "find_files", "is_hub_id", "kind_of", "near_name"]

FileKind = Literal["jsonl", "json", "csv", "tsv", "parquet", "text"]

KINDS: Mapping[str, FileKind] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".md": "text",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tsv": "tsv",
    ".txt": "text",
}

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_SHOWN = 5
# A run's own folder and a saved adapter: what a run wrote is no data of the next one.
_WRITTEN_BY_RUNS = {"run.yaml", "manifest.json"}


def is_hub_id(spec: str) -> bool:
    """Whether a text can only be the name of a dataset on the hub: it names no path, and neither does its first part."""
    path = Path(spec)
    # 'gpt-4.1' has no extension, 'reviews.xlsx' has one.
    looks_like_file = path.suffix.lower() in KINDS or path.suffix[1:].isalpha()
    first = path.parent if path.parent.name else path
    return bool(_HUB_ID.fullmatch(spec)) and not looks_like_file and not first.exists()


def find_files(specs: Sequence[str], where: str = "") -> tuple[Path, ...]:
    """Find the files that paths, globs and folders stand for, in the order given and by name within a glob or folder.

    Args:
        specs: what the user wrote.
        where: where that stands, for errors.

    Raises:
        DatasetError: one of them stands for no file.
    """
    return tuple(file for spec in specs for file in _find(spec, where))


def kind_of(files: Iterable[Path], where: str = "") -> FileKind:
    """Say the one kind that all the files are of.

    Raises:
        DatasetError: the extension of one is unknown, or two are of two kinds.
    """
    first: tuple[Path, FileKind] | None = None
    for file in files:
        kind = KINDS.get(file.suffix.lower())
        if kind is None:
            what = f"has the unknown extension {file.suffix!r}" if file.suffix else "has no extension"
            raise DatasetError(f"file {file.as_posix()!r} {what}", where=where, hint=f"known: {', '.join(KINDS)}")
        first = first or (file, kind)
        if kind != first[1]:
            what = f"{first[0].as_posix()!r} is {first[1]} and {file.as_posix()!r} is {kind}"
            raise DatasetError(what, where=where, hint="name files of one kind")
    if first is None:
        raise DatasetError("the list is empty", where=where)
    return first[1]


def near_name(spec: str) -> str:
    """Ask whether the user meant the file or folder whose name comes nearest; empty where none is near."""
    path = Path(spec).expanduser()
    near = get_close_matches(path.name, _names_beside(path), n=1)
    return f"did you mean {_folder_of(spec) + near[0]!r}?" if near else ""


def _find(spec: str, where: str) -> Iterable[Path]:
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return _in_folder(path, spec, where)
    if spec and path.exists():
        return [path]
    if any(character in spec for character in "*?["):
        # pathlib's own glob takes no absolute pattern and finds hidden files.
        if found := sorted(match for match in map(Path, iglob(str(path), recursive=True)) if match.is_file()):  # noqa: PTH207
            return found
        raise DatasetError(f"no file matches {spec!r}", where=where, hint=_listing(spec, path))
    noun = "file" if path.suffix else "file or folder"
    raise DatasetError(f"no {noun} {spec!r}", where=where, hint=near_name(spec) or _listing(spec, path))


def _in_folder(folder: Path, spec: str, where: str) -> list[Path]:
    try:
        files = sorted(file for file in _walk(folder) if file.suffix.lower() in KINDS and file.is_file())
    except OSError as error:
        unreadable = Path(error.filename).as_posix()
        raise DatasetError(f"{unreadable!r} cannot be read ({error.strerror})", where=where) from None
    # A read-me beside data files describes them.
    data = [file for file in files if file.suffix.lower() != ".md"]
    if any(KINDS[file.suffix.lower()] != "text" for file in data):
        return data
    if not files:
        raise DatasetError(f"folder {spec!r} holds no file to read", where=where, hint=f"known: {', '.join(KINDS)}")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield what is not hidden and no run wrote, without going through symbolic links."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        here = Path(place)
        if here != folder and not _WRITTEN_BY_RUNS.isdisjoint(names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (here / name for name in names if not name.startswith("."))


def _names_beside(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    beside = (file for file in path.parent.iterdir() if file.suffix.lower() in KINDS or file.is_dir())
    return sorted(file.name for file in beside if not file.name.startswith("."))


def _listing(spec: str, path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent.as_posix()!r}"
    names = _names_beside(path)[:_SHOWN]
    return f"here are: {', '.join(_folder_of(spec) + name for name in names)}" if names else ""


def _folder_of(spec: str) -> str:
    return spec[: spec.rstrip("/").rfind("/") + 1]
