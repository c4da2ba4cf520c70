"""A text stream that never raises: not on a broken pipe, a full disk or an encoding that lacks a character."""

import os
from contextlib import suppress
from typing import Any, TextIO


class SafeStream:
    """Writes to another stream until that fails, then nowhere: training must not end because its reader did.

    Attributes:
        lost: the error of the other stream; None while it works.
    """

    def __init__(self, stream: TextIO) -> None:
        """Wrap a stream."""
        self._stream = stream
        self.lost: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write a text, with `?` for characters the stream's encoding lacks."""
        encoding = self._stream.encoding or "utf-8"
        if self.lost is None:
            try:
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError) as error:
                self.lost = error
        return len(text)

    def flush(self) -> None:
        """Flush, unless the stream is lost."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.lost = error

    def finish(self) -> str:
        """Flush for the last time, and keep the interpreter from flushing a lost stream on exit.

        Returns:
            The problem to report; empty if everything was written, or if a reader such as `head` closed the pipe.
        """
        self.flush()
        if self.lost is None:
            return ""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return "" if isinstance(self.lost, BrokenPipeError) else f"the output was cut short ({self.lost})"

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else: `isatty`, `encoding`, `fileno`."""
        return getattr(self._stream, name)
