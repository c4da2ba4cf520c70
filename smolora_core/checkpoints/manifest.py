"""What a checkpoint says of itself, and whether it is still what was written.

The manifest holds the size and SHA-256 of every file, and its own. It is written in one canonical form, so that not a single
bit of it can change unnoticed: neither a value, which its digest tells, nor a blank, which the form tells.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import attrs

from smolora_core.checkpoints.disk import DISK, Disk
from smolora_core.errors import CheckpointError, Problem

MANIFEST = "manifest.json"
_SCHEMA = 1
_DIGEST = "sha256"


def _is_count(_: object, field: Any, value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError(f"{field.name} is no count")


def _are_numbers(_: object, __: object, values: Mapping[str, Any]) -> None:
    for value in values.values():
        if value is not None:
            math.isfinite(value)  # raises for what is no number


def _are_known(_: object, __: object, facts: Mapping[str, Any]) -> None:
    """Check those that a run which goes on looks into."""
    if not all(isinstance(facts.get(name, {}), Mapping) for name in ("versions", "fingerprints")):
        raise TypeError("a fact is no object")
    if not all(isinstance(name, str) for name in facts.get("overrides", ())):
        raise TypeError("an override is no name")


_is_text = attrs.validators.instance_of(str)
_is_object: Any = attrs.validators.instance_of(Mapping)


@attrs.frozen
class FileRecord:
    """A file as it was written."""

    size: int = attrs.field(validator=_is_count)
    sha256: str = attrs.field(validator=_is_text)


@attrs.frozen(kw_only=True)
class Manifest:
    """The commit record of a checkpoint.

    Attributes:
        run_id: the run that it belongs to.
        step: optimizer steps taken.
        seq: counts the commits in a run's folder; a later one has a higher number, whatever a clock says.
        created_utc: when it was written.
        files: by name, `/` between folders.
        metrics: the latest; None for one that was not finite.
        config: the run's config.
        facts: all else that it says.
    """

    run_id: str = attrs.field(validator=_is_text)
    step: int = attrs.field(validator=_is_count)
    seq: int = attrs.field(validator=_is_count)
    created_utc: str = attrs.field(validator=_is_text)
    files: Mapping[str, FileRecord]
    metrics: Mapping[str, float | None] = attrs.field(validator=[_is_object, _are_numbers])
    config: Mapping[str, Any] = attrs.field(validator=_is_object)
    facts: Mapping[str, Any] = attrs.field(factory=dict, validator=_are_known)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def encode(self) -> bytes:
        """Write it as the bytes of its file."""
        own = {name: value for name, value in attrs.asdict(self).items() if name != "facts"}
        own["metrics"] = {name: _number(value) for name, value in self.metrics.items()}
        if clash := sorted(self.facts.keys() & {*own, "schema", _DIGEST}):
            raise ValueError(f"a manifest says {clash[0]!r} itself")
        # Read back once, because JSON turns every key into text, and the order of keys is that of texts.
        said = json.loads(json.dumps(_named({"schema": _SCHEMA, **own, **self.facts}), default=str))
        return _canonical({**said, _DIGEST: _digest(said)})


def read(folder: Path, disk: Disk = DISK) -> Manifest:
    """Read the manifest of a folder; its files are not looked at.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of another schema.
        OSError: it cannot be read now.
    """
    place = folder / MANIFEST
    kind = disk.kind(place)
    if kind != "file":
        raise CheckpointError("is no plain file" if kind else "is missing", where=str(place))
    content = disk.read(place)
    try:
        said = json.loads(content)
        schema = said.get("schema")
        if schema == _SCHEMA and _canonical(said) == content and said.pop(_DIGEST) == _digest(said):
            return _manifest(said)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError("is damaged", where=str(place)) from error
    if schema == _SCHEMA or not isinstance(schema, int):
        raise CheckpointError("is damaged", where=str(place))
    raise CheckpointError(f"has schema {schema!r}, and this version of SmoLoRA reads {_SCHEMA}", where=str(place))


def verify(folder: Path, disk: Disk = DISK) -> Manifest:
    """Check that a checkpoint holds every file of its manifest as it was written.

    Further files are no error: nothing that reads a checkpoint asks for them. `surplus` names them.

    Raises:
        CheckpointError: the manifest cannot be used, or with a problem for each file that is missing or different.
    """
    try:
        if disk.kind(folder) != "folder":
            raise CheckpointError("is no plain folder", where=str(folder))
        manifest = read(folder, disk)
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=str(folder)) from error
    if problems := list(_problems(folder, manifest, disk)):
        raise CheckpointError.of(problems)
    return manifest


def surplus(folder: Path, manifest: Manifest, disk: Disk = DISK) -> list[str]:
    """Name the files of a checkpoint that its manifest does not know, those that a file manager hides aside."""
    names = (entry.path.relative_to(folder).as_posix() for entry in disk.tree(folder) if entry.kind != "folder")
    return [name for name in names if name not in {*manifest.files, MANIFEST} and not PurePosixPath(name).name.startswith(".")]


def is_inside(name: str) -> bool:
    """Say whether a name from a file means a file inside the folder, on every system."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    parts = name.split("/")
    outside = PureWindowsPath(name).drive or {"", ".", ".."} & set(parts)
    return name != MANIFEST and not {"\\", "\0"} & set(name) and not outside


def _problems(folder: Path, manifest: Manifest, disk: Disk) -> Iterator[Problem]:
    for name, written in manifest.files.items():
        file = folder / name
        above = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
        try:
            kind = disk.kind(file)
            if kind is None:
                yield Problem("is missing", where=str(file))
            elif kind != "file" or any(disk.kind(parent) != "folder" for parent in above):
                yield Problem("is no plain file", where=str(file))
            elif (found := FileRecord(*disk.digest(file))).size != written.size:
                yield Problem(f"has {found.size} bytes, and {written.size} were written", where=str(file))
            elif found != written:
                yield Problem("is not what was written", where=str(file))
        except OSError as error:
            yield Problem(f"cannot be read ({error.strerror or error})", where=str(file))


def _manifest(said: dict[str, Any]) -> Manifest:
    own = {field.name: said.pop(field.name) for field in attrs.fields(Manifest) if field.name != "facts"}
    own["files"] = {name: FileRecord(entry["size"], entry["sha256"]) for name, entry in own["files"].items()}
    if not all(map(is_inside, own["files"])):
        raise ValueError("a file outside of the folder")
    return Manifest(**own, facts={name: value for name, value in said.items() if name != "schema"})


def _canonical(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, indent=1, sort_keys=True) + "\n").encode("ascii")


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(said)).hexdigest()


def _number(value: float | None) -> float | None:
    """Leave out what JSON has no number for."""
    return None if value is None or not math.isfinite(value) else float(value)


def _named(value: Any) -> Any:
    """Write numbers that JSON has none for as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _named(each) for name, each in value.items()}
    return [_named(each) for each in value] if isinstance(value, list | tuple) else value
