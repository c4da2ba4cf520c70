"""Find the files behind a path, a glob, a list or a folder, and the kind they share."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from glob import iglob
from pathlib import Path
from typing import Literal

import attrs

from smolora_core.data.sources.compression import COMPRESSED, uncompressed
from smolora_core.errors import DatasetError

FileKind = Literal["conll", "csv", "json", "jsonl", "parquet", "text", "tsv"]

KINDS: Mapping[str, FileKind] = {
    ".bio": "conll",
    ".conll": "conll",
    ".csv": "csv",
    ".iob": "conll",
    ".iob2": "conll",
    ".json": "json",
    ".jsonl": "jsonl",
    ".md": "text",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tsv": "tsv",
    ".txt": "text",
}

_KNOWN = f"known: {', '.join(KINDS)}; all but .parquet may be compressed as {' or '.join(COMPRESSED)}"
_HELD_OUT = {"test", "dev", "valid", "validation", "eval"}
_SHOWN = 5
_find_words = re.compile(r"[a-z]+").findall
# Run folders and saved adapters contain one of these; the output of one run is not data for the next.
_WRITTEN_BY_RUNS = {"run.yaml", "manifest.json"}


@attrs.frozen
class Found:
    """Files, and a note for each folder from which some were skipped."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def find_files(specs: Sequence[str], where: str = "", *, held_out: bool = False) -> Found:
    """Find the files that paths, globs and folders match, in the order given, and by name within a glob or folder.

    Args:
        specs: paths, globs and folders, as the user wrote them.
        where: the place in the config, for errors.
        held_out: whether to take the evaluation files of a folder that contains training files too.

    Raises:
        DatasetError: one of them matches no file.
    """
    found = [_find(spec, where, held_out) for spec in specs]
    return Found(tuple(file for each in found for file in each.files), tuple(note for each in found for note in each.notes))


def kind_of(files: Iterable[Path], where: str = "") -> FileKind:
    """Determine the kind that all files share; raise a DatasetError for an unknown extension or several kinds."""
    first: tuple[Path, FileKind] | None = None
    for file in files:
        kind = _kind(file)
        if kind is None:
            extension = uncompressed(file).suffix + file.suffix * (file != uncompressed(file))
            what = f"has the unknown extension {extension!r}" if extension else "has no extension"
            raise DatasetError(f"file {file.as_posix()!r} {what}", where=where, hint=_KNOWN)
        first = first or (file, kind)
        if kind != first[1]:
            what = f"{first[0].as_posix()!r} is {first[1]} and {file.as_posix()!r} is {kind}"
            raise DatasetError(what, where=where, hint="list files of one kind only")
    if first is None:
        raise DatasetError("the list of files is empty", where=where)
    return first[1]


def near_name(spec: str) -> str:
    """Suggest the existing file or folder with the most similar name; empty if none is similar."""
    path = Path(spec).expanduser()
    near = get_close_matches(path.name, _siblings(path), n=1)
    return f"did you mean {_folder_of(spec) + near[0]!r}?" if near else ""


def _kind(file: Path) -> FileKind | None:
    plain = uncompressed(file)
    kind = KINDS.get(plain.suffix.lower())
    return None if kind == "parquet" and plain != file else kind


def _find(spec: str, where: str, held_out: bool) -> Found:
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return _one_split(path, spec, _in_folder(path, spec, where), held_out)
    if spec and path.exists():
        return Found((path,))
    if path.is_symlink():
        raise DatasetError(f"{spec!r} is a broken link", where=where)
    if any(character in spec for character in "*?["):
        # pathlib's own glob rejects absolute patterns and matches hidden files.
        if found := sorted(match for match in map(Path, iglob(str(path), recursive=True)) if match.is_file()):  # noqa: PTH207
            return Found(tuple(found))
        raise DatasetError(f"no file matches {spec!r}", where=where, hint=_listing(spec, path))
    noun = "file" if path.suffix else "file or folder"
    raise DatasetError(f"no {noun} {spec!r}", where=where, hint=near_name(spec) or _listing(spec, path))


def _in_folder(folder: Path, spec: str, where: str) -> list[Path]:
    try:
        files = sorted(file for file in _walk(folder) if _kind(file) and (file.is_file() or file.is_symlink()))
    except OSError as error:
        unreadable = Path(error.filename).as_posix()
        raise DatasetError(f"{unreadable!r} cannot be read ({error.strerror})", where=where) from error
    if broken := [file for file in files if not file.exists()]:
        raise DatasetError(f"{broken[0].as_posix()!r} is a broken link", where=where)
    # A README next to data files is not data.
    data = [file for file in files if uncompressed(file).suffix.lower() != ".md"]
    if any(_kind(file) != "text" for file in data):
        return data
    if not files:
        raise DatasetError(f"folder {spec!r} contains no data files", where=where, hint=_KNOWN)
    return files


def _one_split(folder: Path, spec: str, files: Sequence[Path], held_out: bool) -> Found:
    """Skip the files whose names put them in the other split."""
    words = {file: set(_find_words(file.relative_to(folder).as_posix().lower())) for file in files}
    train = [file for file in files if _HELD_OUT.isdisjoint(words[file])]
    rest = [file for file in files if not _HELD_OUT.isdisjoint(words[file])]
    # A document's name is often its title: 'how-to-test.md' is not a test set, unless there is a 'train.md'.
    titles = _kind(files[0]) == "text" and not any("train" in each for each in words.values())
    if not train or not rest or titles:
        return Found(tuple(files))
    kept, skipped = (rest, train) if held_out else (train, rest)
    note = f"folder {spec!r}: reading {_names(folder, kept)}, skipping {_names(folder, skipped)}"
    return Found(tuple(kept), (note if held_out else f"{note}; set data.eval to {spec!r} to evaluate on the rest",))


def _names(folder: Path, files: Sequence[Path]) -> str:
    names = [file.relative_to(folder).as_posix() for file in files]
    return ", ".join(names) if len(names) <= _SHOWN else f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files that are neither hidden nor written by a run, without following symbolic links."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        here = Path(parent)
        if here != folder and not _WRITTEN_BY_RUNS.isdisjoint(names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (here / name for name in names if not name.startswith("."))


def _siblings(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    files = (file for file in path.parent.iterdir() if _kind(file) or file.is_dir())
    return sorted(file.name for file in files if not file.name.startswith("."))


def _listing(spec: str, path: Path) -> str:
    if not path.parent.is_dir():
        return f"folder {path.parent.as_posix()!r} does not exist"
    names = _siblings(path)[:_SHOWN]
    return f"available: {', '.join(_folder_of(spec) + name for name in names)}" if names else ""


def _folder_of(spec: str) -> str:
    return spec[: spec.rstrip("/").rfind("/") + 1]
