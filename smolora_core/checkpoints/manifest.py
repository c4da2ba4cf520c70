"""The manifest of a checkpoint, and the check that its files are still what was written.

The manifest lists the size and SHA-256 of every file, and its own digest. It has one canonical encoding, so that no bit of it
can change unnoticed: a changed value breaks the digest, changed whitespace breaks the encoding.
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
        raise TypeError(f"{field.name} must be a non-negative int64")


def _are_numbers(_: object, __: object, values: Mapping[str, Any]) -> None:
    for value in values.values():
        if value is not None:
            math.isfinite(value)  # raises for anything but a number


def _are_facts(_: object, __: object, facts: Mapping[str, Any]) -> None:
    """Check the facts that a resumed run reads."""
    if not all(isinstance(facts.get(name, {}), Mapping) for name in ("versions", "fingerprints")):
        raise TypeError("versions and fingerprints must be objects")
    if not all(isinstance(name, str) for name in facts.get("overrides", ())):
        raise TypeError("overrides must be strings")


_is_text = attrs.validators.instance_of(str)
_is_object: Any = attrs.validators.instance_of(Mapping)


@attrs.frozen
class FileRecord:
    """The size and SHA-256 of a file when it was written."""

    size: int = attrs.field(validator=_is_count)
    sha256: str = attrs.field(validator=_is_text)


@attrs.frozen(kw_only=True)
class Manifest:
    """The commit record of a checkpoint.

    Attributes:
        run_id: the run it belongs to.
        step: optimizer steps taken.
        seq: the commit's number in the run's folder; later commits have higher ones, whatever the clock says.
        created_utc: when it was committed.
        files: the files by name, with `/` between folders.
        metrics: the latest metrics; None for a non-finite value.
        config: the run's config.
        facts: all other fields.
    """

    run_id: str = attrs.field(validator=_is_text)
    step: int = attrs.field(validator=_is_count)
    seq: int = attrs.field(validator=_is_count)
    created_utc: str = attrs.field(validator=_is_text)
    files: Mapping[str, FileRecord]
    metrics: Mapping[str, float | None] = attrs.field(validator=[_is_object, _are_numbers])
    config: Mapping[str, Any] = attrs.field(validator=_is_object)
    facts: Mapping[str, Any] = attrs.field(factory=dict, validator=_are_facts)

    @property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(file.size for file in self.files.values())

    def encode(self) -> bytes:
        """Encode the manifest canonically, with its own digest."""
        own = {name: value for name, value in attrs.asdict(self).items() if name != "facts"}
        own["metrics"] = {
            name: None if value is None or not math.isfinite(value) else float(value) for name, value in self.metrics.items()
        }
        if clash := sorted(self.facts.keys() & {*own, "schema", _DIGEST}):
            raise ValueError(f"{clash[0]!r} is a manifest field and cannot be a fact")
        # Decode once: JSON turns every key into text, and keys must be sorted as text.
        fields = json.loads(json.dumps(_json_safe({"schema": _SCHEMA, **own, **self.facts}), default=str))
        return _canonical({**fields, _DIGEST: _digest(fields)})


def read(folder: Path, disk: Disk = DISK) -> Manifest:
    """Read a folder's manifest without looking at its files.

    Raises:
        CheckpointError: the manifest is missing, damaged or of another schema.
        OSError: it cannot be read.
    """
    place = folder / MANIFEST
    kind = disk.kind(place)
    if kind != "file":
        raise CheckpointError("is not a regular file" if kind else "is missing", where=str(place))
    content = disk.read(place)
    try:
        fields = json.loads(content)
        schema = fields.get("schema")
        if schema == _SCHEMA and _canonical(fields) == content and fields.pop(_DIGEST) == _digest(fields):
            return _decode(fields)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise CheckpointError("is damaged", where=str(place)) from error
    if schema == _SCHEMA or not isinstance(schema, int):
        raise CheckpointError("is damaged", where=str(place))
    raise CheckpointError(f"has schema {schema!r}, but this version of SmoLoRA reads schema {_SCHEMA}", where=str(place))


def verify(folder: Path, disk: Disk = DISK) -> Manifest:
    """Check every file of a checkpoint against its manifest; files the manifest does not list (`surplus`) are ignored.

    Raises:
        CheckpointError: the manifest cannot be used, or files are missing or different, with one problem per file.
    """
    try:
        if disk.kind(folder) != "folder":
            raise CheckpointError("is not a regular folder", where=str(folder))
        manifest = read(folder, disk)
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=str(folder)) from error
    if problems := list(_problems(folder, manifest, disk)):
        raise CheckpointError.of(problems)
    return manifest


def surplus(folder: Path, manifest: Manifest, disk: Disk = DISK) -> list[str]:
    """List the files in a checkpoint that its manifest does not list, except hidden ones such as `.DS_Store`."""
    names = (entry.path.relative_to(folder).as_posix() for entry in disk.tree(folder) if entry.kind != "folder")
    return [name for name in names if name not in {*manifest.files, MANIFEST} and not PurePosixPath(name).name.startswith(".")]


def is_inside(name: str) -> bool:
    """Check that a name denotes a file inside the folder on every operating system, and not the manifest itself."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    outside = PureWindowsPath(name).drive or {"", ".", ".."} & set(name.split("/"))
    return name != MANIFEST and not {"\\", "\0"} & set(name) and not outside


def _problems(folder: Path, manifest: Manifest, disk: Disk) -> Iterator[Problem]:
    for name, expected in manifest.files.items():
        file = folder / name
        parents = [parent for parent in file.parents if parent.is_relative_to(folder) and parent != folder]
        try:
            kind = disk.kind(file)
            if kind is None:
                yield Problem("is missing", where=str(file))
            elif kind != "file" or any(disk.kind(parent) != "folder" for parent in parents):
                yield Problem("is not a regular file", where=str(file))
            elif (found := FileRecord(*disk.digest(file))).size != expected.size:
                yield Problem(f"has {found.size} bytes, expected {expected.size}", where=str(file))
            elif found != expected:
                yield Problem("does not match its checksum", where=str(file))
        except OSError as error:
            yield Problem(f"cannot be read ({error.strerror or error})", where=str(file))


def _decode(fields: dict[str, Any]) -> Manifest:
    own = {field.name: fields.pop(field.name) for field in attrs.fields(Manifest) if field.name != "facts"}
    own["files"] = {name: FileRecord(entry["size"], entry["sha256"]) for name, entry in own["files"].items()}
    if not all(map(is_inside, own["files"])):
        raise ValueError("a file is outside the folder")
    return Manifest(**own, facts={name: value for name, value in fields.items() if name != "schema"})


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=1, sort_keys=True) + "\n").encode("ascii")


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(fields)).hexdigest()


def _json_safe(value: Any) -> Any:
    """Replace non-finite floats, which JSON lacks, with text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _json_safe(each) for name, each in value.items()}
    return [_json_safe(each) for each in value] if isinstance(value, list | tuple) else value
