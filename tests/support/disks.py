"""A file system that a test stops, lets fail or forgets at any operation, and small checkpoints to commit on it."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.retention import Keep
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store

CHANGES = ("make_folder", "write", "sync_file", "sync_folder", "rename", "remove")
OPERATIONS = (*CHANGES, "read", "digest", "kind", "entries", "free")


class HookedDisk(Disk):
    """A file system with a hook around each operation: `hook(operation, arguments, perform)`."""

    def __init__(self, hook: Callable[[str, tuple[Any, ...], Callable[[], Any]], Any], disk: Disk | None = None) -> None:
        self.hook, self.disk = hook, disk or Disk()


def _hooked(name: str) -> Callable[..., Any]:
    def operation(self: HookedDisk, *arguments: Any) -> Any:
        return self.hook(name, arguments, lambda: getattr(self.disk, name)(*arguments))

    return operation


for _name in OPERATIONS:
    setattr(HookedDisk, _name, _hooked(_name))


class HastyDisk(Disk):
    """The real file system without the waiting for the medium, which only a loss of power needs."""

    def sync_file(self, path: Path) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


def checkpoint(step: int = 1, **metrics: float) -> Checkpoint:
    return Checkpoint(step=step, model=None, tokenizer=None, metrics=metrics, config={"seed": 42}, facts={"device": "cpu"})


def files_of(step: int, note: str = "") -> dict[str, bytes]:
    return {"weights.bin": f"{step}{note}".encode() * 40, "deep/config.json": f'{{"step": {step}}}'.encode()}


def writing(files: dict[str, bytes], disk: Disk | None = None, between: Callable[[], object] = lambda: None) -> Any:
    """A writer of files, each in two halves on the real file system, or at once on another one."""

    def write(checkpoint: Checkpoint, directory: Path) -> None:
        for name, content in files.items():
            path = directory / name
            if disk is not None:
                if path.parent != directory:
                    disk.make_folder(path.parent)
                disk.write(path, content)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(content[: len(content) // 2])
                stream.flush()
                between()
                stream.write(content[len(content) // 2 :])

    return write


def store(folder: Path, disk: Disk | None = None, **more: Any) -> Store:
    return Store(folder=folder, run_id="run-1", keep=Keep(latest=2), disk=disk or HastyDisk(), **more)


def commit(at: Store, step: int, note: str = "", name: str | None = None, **metrics: float) -> Path:
    disk = None if isinstance(at.disk, HastyDisk) else at.disk
    return at.commit(checkpoint(step, **metrics), [("one", writing(files_of(step, note), disk))], name)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def killed_at(number: int, *, middle: bool, save: Callable[[Disk, Callable[[], object]], object]) -> bool:
    """Save in a child process that is killed at one of its operations: before it, or in the middle of one that writes.

    Returns:
        Whether there was such an operation.
    """
    child = os.fork()
    if child == 0:
        counter = itertools.count(1)

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def hook(operation: str, arguments: tuple[Any, ...], perform: Callable[[], Any]) -> Any:
            if operation in CHANGES and next(counter) == number:
                if middle and operation == "write":
                    path, content = arguments
                    path.write_bytes(content[: len(content) // 2])
                elif middle:
                    perform()
                die()
            return None if operation.startswith("sync") else perform()

        try:
            save(HookedDisk(hook), lambda: die() if next(counter) == number else None)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
