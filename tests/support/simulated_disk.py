"""A file system in memory that loses power.

A name lasts once its folder is synced, a content once its file is. Of what is not synced, a loss of power leaves what it likes.

- `ordered`: changes of names last in the order they were made, as in a journal; syncing a folder keeps all before it.
- `reordered`: each change of a name that is not synced lasts or is lost by itself.

In both, a content that is not synced is whole, empty, cut off or zeroed in part.
"""

import hashlib
import itertools
from pathlib import Path
from random import Random
from typing import Any

import attrs

from smolora_core.checkpoints.disk import Disk, Entry

MODES = ("ordered", "reordered")
_ROOT = 0


class PowerLossError(BaseException):
    """Nothing works from here on."""


@attrs.define
class _Change:
    """A name that a node gets in a folder, or loses."""

    folder: int
    name: str
    node: int | None
    source: tuple[int, str] | None = None
    lasts: bool = False


@attrs.define
class _File:
    content: bytes
    synced: bytes | None = None


class SimulatedDisk(Disk):
    """See above.

    Args:
        random: decides what a loss of power leaves.
        mode: of `MODES`.
        syncs: whether syncing does anything.
        lives: operations before the power is lost.
    """

    def __init__(self, random: Random, mode: str, *, syncs: bool = True, lives: int | None = None) -> None:
        self._random, self._mode, self._syncs = random, mode, syncs
        self.lives, self.operations = lives, 0
        self._folders: dict[int, dict[str, int]] = {_ROOT: {}}
        self._files: dict[int, _File] = {}
        self._kept: dict[int, dict[str, int]] = {_ROOT: {}}
        self._changes: list[_Change] = []
        self._numbers = itertools.count(1)

    def after_kill(self, lives: int) -> "SimulatedDisk":
        """What the next start finds if only the process has died: all of it, and nothing synced that was not."""
        self.lives = self.operations + lives
        return self

    def after_power_loss(self, lives: int | None = None) -> "SimulatedDisk":
        """What the next start finds."""
        again = SimulatedDisk(self._random, self._mode, syncs=self._syncs, lives=lives)
        again._numbers = self._numbers
        again._folders = {number: dict(names) for number, names in self._kept.items()}
        pending = [change for change in self._changes if not change.lasts]
        if self._mode == "ordered":
            lost = pending[self._random.randint(0, len(pending)) :]
        else:
            lost = [change for change in pending if self._random.random() < 0.5]
        for change in self._changes:
            if not any(change is each for each in lost):
                _apply(again._folders, change)
        for number in self._folders.keys() | self._files.keys():
            if number in self._files:
                content = self._left_of(self._files[number])
                again._files[number] = _File(content, content)
            else:
                again._folders.setdefault(number, {})
        again._kept = {number: dict(names) for number, names in again._folders.items()}
        return again

    def _left_of(self, file: _File) -> bytes:
        if file.synced is not None:
            return file.synced
        whole, size = file.content, len(file.content)
        start = self._random.randint(0, size)
        zeroed = whole[:start] + bytes(size - start)
        return self._random.choice([whole, b"", whole[:start], zeroed, bytes(size)])

    def _tick(self) -> None:
        if self.lives is not None and self.operations >= self.lives:
            raise PowerLossError
        self.operations += 1

    def _find(self, path: Path) -> int | None:
        number = _ROOT
        for part in path.parts[1:]:
            names = self._folders.get(number)
            if names is None or part not in names:
                return None
            number = names[part]
        return number

    def _number(self, path: Path) -> int:
        number = self._find(path)
        if number is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return number

    def _change(self, path: Path, node: int | None, source: Path | None = None) -> None:
        away = (self._number(source.parent), source.name) if source else None
        change = _Change(self._number(path.parent), path.name, node, away)
        _apply(self._folders, change)
        self._changes.append(change)

    def _new(self, path: Path) -> int:
        if self._find(path) is not None:
            raise FileExistsError(17, "File exists", str(path))
        return next(self._numbers)

    def make_folder(self, path: Path) -> None:
        self._tick()
        number = self._new(path)
        self._folders[number] = {}
        self._change(path, number)

    def write(self, path: Path, content: bytes) -> None:
        self._tick()
        number = self._new(path)
        self._files[number] = _File(content)
        self._change(path, number)

    def sync_file(self, path: Path) -> None:
        self._tick()
        file = self._files[self._number(path)]
        if self._syncs:
            file.synced = file.content

    def sync_folder(self, path: Path) -> None:
        self._tick()
        number = self._number(path)
        assert number in self._folders
        if not self._syncs:
            return
        of_it = [index for index, change in enumerate(self._changes) if change.folder == number]
        if self._mode == "ordered":
            of_it = list(range(max(of_it, default=-1) + 1))
        for index in of_it:
            self._changes[index].lasts = True

    def rename(self, source: Path, target: Path) -> None:
        self._tick()
        number, there = self._number(source), self._find(target)
        if there is not None and self._folders.get(there):
            raise OSError(39, "Directory not empty", str(target))
        self._change(target, number, source)

    def remove(self, path: Path) -> None:
        self._tick()
        if self._folders.get(self._number(path)):
            raise OSError(39, "Directory not empty", str(path))
        self._change(path, None)

    def read(self, path: Path) -> bytes:
        self._tick()
        return self._files[self._number(path)].content

    def digest(self, path: Path) -> tuple[int, str]:
        content = self.read(path)
        return len(content), hashlib.sha256(content).hexdigest()

    def kind(self, path: Path) -> Any:
        self._tick()
        number = self._find(path)
        return None if number is None else "folder" if number in self._folders else "file"

    def entries(self, folder: Path) -> list[Entry]:
        self._tick()
        names = self._folders[self._number(folder)]
        return [
            Entry(folder / name, "folder", 0)
            if number in self._folders
            else Entry(folder / name, "file", len(self._files[number].content))
            for name, number in sorted(names.items())
        ]

    def free(self, path: Path) -> int:
        return 1_000_000


def _apply(folders: dict[int, dict[str, int]], change: _Change) -> None:
    names = folders.setdefault(change.folder, {})
    if change.source is not None:
        # A node has one name, also where the change that gave it the name before is lost.
        for others in folders.values():
            for name in [name for name, node in others.items() if node == change.node]:
                del others[name]
    if change.node is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.node
