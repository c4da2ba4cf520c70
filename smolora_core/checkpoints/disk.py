"""The file-system operations that checkpoints rely on, in one class so that tests can make each of them fail.

Only the files a writer puts into its private folder are created elsewhere; even those are read back and synced through here.
"""

import hashlib
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import attrs

Kind = Literal["file", "folder", "other"]
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@attrs.frozen
class Entry:
    """A name in a folder; a symlink is `other`, whatever it points to."""

    path: Path
    kind: Kind
    size: int


class Disk:
    """The file system: primitive operations up to `free`, then helpers built on them."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that only its owner can open."""
        path.mkdir(mode=0o700)

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file; it is durable only once `sync_file` returns."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)

    def sync_file(self, path: Path) -> None:
        """Wait until a file's content is on the medium."""
        # Windows syncs only descriptors that are open for writing.
        descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | _NO_LINKS)
        try:
            if sys.platform == "darwin":
                import fcntl

                # On macOS, fsync leaves the data in the drive's cache.
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            else:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the medium; a no-op on Windows, which cannot sync folders."""
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINKS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder; an existing target is replaced if it is a file or an empty folder."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or an empty folder."""
        if self.kind(path) == "folder":
            path.rmdir()
        else:
            path.unlink()

    def read(self, path: Path) -> bytes:
        """Read a file; refuse a symlink."""
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb") as stream:
            return stream.read()

    def digest(self, path: Path) -> tuple[int, str]:
        """Return a file's size and SHA-256; refuse a symlink."""
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), digest

    def kind(self, path: Path) -> Kind | None:
        """Classify a path without following links; None if nothing is there."""
        try:
            return _kind_of(path.lstat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def entries(self, folder: Path) -> list[Entry]:
        """List a folder, sorted by name."""
        with os.scandir(folder) as names:
            found = sorted((Path(name.path), name.stat(follow_symlinks=False)) for name in names)
        return [Entry(path, _kind_of(info.st_mode), info.st_size) for path, info in found]

    def free(self, path: Path) -> int:
        """Return the free bytes on the file system of a path."""
        return shutil.disk_usage(path).free

    def tree(self, folder: Path) -> Iterator[Entry]:
        """Walk a folder, yielding each folder after its contents."""
        for entry in self.entries(folder):
            if entry.kind == "folder":
                yield from self.tree(entry.path)
            yield entry

    def make_folders(self, path: Path) -> None:
        """Make a folder and its missing parents, durably."""
        if self.kind(path) is None:
            self.make_folders(path.parent)
            self.make_folder(path)
            self.sync_folder(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a path and everything below it, if it exists."""
        if self.kind(path) == "folder":
            for entry in list(self.tree(path)):
                self.remove(entry.path)
        if self.kind(path) is not None:
            self.remove(path)


DISK = Disk()


def hidden_sibling(place: Path, role: Literal["staging", "replaced", "trash"]) -> Path:
    """Generate an unused hidden name next to a path: `.staging-checkpoint-2-0123abcd`."""
    return place.with_name(f".{role}-{place.name}-{uuid.uuid4().hex[:8]}")


def replace_file(place: Path, content: bytes, disk: Disk = DISK) -> None:
    """Replace a file's content atomically and durably.

    Raises:
        OSError: the file system refused; the old content is intact.
    """
    staging = hidden_sibling(place, "staging")
    try:
        disk.write(staging, content)
        disk.sync_file(staging)
        disk.rename(staging, place)
        disk.sync_folder(place.parent)
    except OSError:
        with suppress(OSError):
            disk.remove_tree(staging)
        raise


def _kind_of(mode: int) -> Kind:
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"
