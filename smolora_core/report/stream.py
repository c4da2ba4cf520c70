"""A text stream that a broken pipe, a full disk or an old encoding cannot turn into an error."""

import os
from contextlib import suppress
from typing import Any, TextIO


class LastingStream:
    """Writes to another stream as long as that works, and nowhere afterwards: no training ends because nobody reads on.

    Attributes:
        lost: what the other stream raised when it was given up.
    """

    def __init__(self, stream: TextIO) -> None:
        """Stand in for a stream."""
        self._stream = stream
        self.lost: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write a text, with `?` for what the stream's encoding does not have."""
        encoding = self._stream.encoding or "utf-8"
        if self.lost is None:
            try:
                self._stream.write(text.encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, if there is still something to flush to."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def finish(self) -> str:
        """Flush for the last time, and keep the interpreter from flushing a lost stream when it ends.

        Returns:
            What to tell a person: nothing where all was written, or where a reader like `head` merely had enough.
        """
        self.flush()
        if self.lost is None:
            return ""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        return "" if isinstance(self.lost, BrokenPipeError) else f"the output was cut short ({self.lost})"

    def __getattr__(self, name: str) -> Any:
        """Be like the other stream in everything else: a terminal or not, as wide, in its encoding."""
        return getattr(self._stream, name)

    def _give_up(self, error: OSError | ValueError) -> None:
        self.lost = error
