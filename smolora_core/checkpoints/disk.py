"""Every operation on the file system that a checkpoint depends on, so that a test can let each of them fail.

Only what a writer puts into its private folder comes about elsewhere; the store reads that back, and syncs it, through here.
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
    """A name in a folder; a link is `other`, whatever it leads to."""

    path: Path
    kind: Kind
    size: int


class Disk:
    """The file system. The methods up to `free` are the operations; the rest is made of them."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that nobody else may look into."""
        path.mkdir(mode=0o700)

    def write(self, path: Path, content: bytes) -> None:
        """Write a file that must not exist yet; it lasts once it is synced."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)

    def sync_file(self, path: Path) -> None:
        """Wait until the content of a file is on the medium."""
        # Windows syncs only what is open for writing.
        descriptor = os.open(path, (os.O_RDWR if os.name == "nt" else os.O_RDONLY) | _NO_LINKS)
        try:
            if sys.platform == "darwin":
                import fcntl

                # There fsync leaves the data in the drive's cache.
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            else:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the medium; Windows has no such operation."""
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINKS)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name; a file there is replaced, a folder only if it is empty."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or an empty folder."""
        if self.kind(path) == "folder":
            path.rmdir()
        else:
            path.unlink()

    def read(self, path: Path) -> bytes:
        """Read a file, and no link."""
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb") as stream:
            return stream.read()

    def digest(self, path: Path) -> tuple[int, str]:
        """Read a file, and no link, for its size and SHA-256."""
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINKS), "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), digest

    def kind(self, path: Path) -> Kind | None:
        """Look what a name stands for, without following it; None if it stands for nothing."""
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"

    def entries(self, folder: Path) -> list[Entry]:
        """List a folder by name."""
        found = []
        with os.scandir(folder) as names:
            for name in names:
                info = name.stat(follow_symlinks=False)
                kind: Kind = "file" if stat.S_ISREG(info.st_mode) else "folder" if stat.S_ISDIR(info.st_mode) else "other"
                found.append(Entry(Path(name.path), kind, info.st_size))
        return sorted(found, key=lambda entry: entry.path)

    def free(self, path: Path) -> int:
        """Count the bytes that may still be written there."""
        return shutil.disk_usage(path).free

    def tree(self, folder: Path) -> Iterator[Entry]:
        """List all that is in a folder, each folder after what is in it."""
        for entry in self.entries(folder):
            if entry.kind == "folder":
                yield from self.tree(entry.path)
            yield entry

    def make_folders(self, path: Path) -> None:
        """Make a folder and those above it, and let their names last."""
        if self.kind(path) is None:
            self.make_folders(path.parent)
            self.make_folder(path)
            self.sync_folder(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove whatever there is, one operation after the other."""
        if self.kind(path) == "folder":
            for entry in list(self.tree(path)):
                self.remove(entry.path)
        if self.kind(path) is not None:
            self.remove(path)


DISK = Disk()


def beside(place: Path, role: Literal["staging", "replaced", "trash"]) -> Path:
    """Make up a name that nothing has, beside the place it belongs to."""
    return place.with_name(f".{role}-{place.name}-{uuid.uuid4().hex[:8]}")


def replace_file(place: Path, content: bytes, disk: Disk = DISK) -> None:
    """Write a file so that its name always stands for the whole old or the whole new content.

    Raises:
        OSError: the file system refused; the old content is there.
    """
    staging = beside(place, "staging")
    try:
        disk.write(staging, content)
        disk.sync_file(staging)
        disk.rename(staging, place)
        disk.sync_folder(place.parent)
    except OSError:
        with suppress(OSError):
            disk.remove_tree(staging)
        raise
