"""The folder of a run: whether it can be written, and what an earlier run left in it."""

import os
from contextlib import suppress
from pathlib import Path

from smolora_core.config import Resolved
from smolora_core.errors import ConfigError

__all__ = ["claim", "locate"]

_OURS = ("run.yaml", "events.jsonl", "ledger.json", "report.html", "profile.pstats", "prepared", "adapter", "checkpoint-*")


def locate(resolved: Resolved) -> Path:
    """Find the folder that a config means, and make sure that it can be written; nothing is made yet.

    Raises:
        ConfigError: a file stands there, or the folder cannot be made or written; or training would read it as data.
    """
    where = resolved.where("output_dir")
    given = resolved.config.output_dir
    try:
        folder = Path(given).expanduser()
        standing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not standing.is_dir():
            raise ConfigError(f"output_dir {given!r} cannot be a folder: {str(standing)!r} is a file", where=where)
        if not os.access(standing, os.W_OK | os.X_OK):
            raise ConfigError(f"output_dir {given!r} cannot be written: no permission in {str(standing)!r}", where=where)
        with suppress(FileNotFoundError):
            folder.lstat()  # a name that the file system does not take raises here
        sources = [resolved.config.data.train] if isinstance(resolved.config.data.train, str) else resolved.config.data.train
        for source in sources:
            data = Path(source).expanduser()
            if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
                raise ConfigError(
                    f"output_dir {given!r} lies in the data folder {source!r}", where=where, hint="choose another"
                )
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"output_dir {given!r} cannot be used ({error})", where=where) from error
    return folder


def claim(folder: Path) -> Path | None:
    """Make the folder, and move what an earlier run left into `previous-N`, so that the folder describes one run only.

    Returns:
        Where the earlier run is now, or None if there was none.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    left = sorted(path for pattern in _OURS for path in folder.glob(pattern))
    if not left:
        return None
    number = 1
    while (folder / f"previous-{number}").exists():
        number += 1
    aside = folder / f"previous-{number}"
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
    return aside
