"""The pipe by which the output of an instance comes to the host."""

from __future__ import annotations

import asyncio
import codecs
import os
import select
from collections.abc import Callable
from pathlib import Path

_CHUNK = 65_536
_MOST_AT_ONCE = 4
"""Chunks that are read in one go: a process that never stops writing must not keep the loop. What is no UTF-8 takes a
millisecond each."""


class LogPipe:
    """Reads what a process writes to its standard streams and passes it on as text.

    :param write: takes text; called on the loop.
    :param path: where a named pipe is made that anybody who sees it can write into; None: it has no name.
    :ivar writer: the end that the process gets, or that keeps a named one from ending before it is opened there.
    """

    def __init__(self, write: Callable[[str], object], path: Path | None = None) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC) if path is None else _named(path)
        os.set_blocking(self._reader, False)
        self._poll = select.poll()
        self._poll.register(self._reader, select.POLLIN)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._loop.add_reader(self._reader, self._read)

    def close_writer(self) -> None:
        """Close our copy of the process's end, so that the pipe ends with the process."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def drain(self) -> None:
        """Pass on what is in the pipe now."""
        if self._reader >= 0 and self._poll.poll(0):  # mostly nothing, which costs half of a read that fails
            self._read()

    def close(self) -> None:
        """Pass on what is left, and close. Closing twice is fine."""
        self.close_writer()
        if self._reader >= 0:
            self._read()
        if self._reader >= 0:
            self._end()

    def _read(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            try:
                data = os.read(self._reader, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            text = self._decoder.decode(data, final=not data)
            if text:
                self._write(text)
            if not data:
                self._end()
                return
            if len(data) < _CHUNK:
                return

    def _end(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        self._reader = -1


def _named(path: Path) -> tuple[int, int]:
    os.mkfifo(path)
    path.chmod(0o622)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return reader, os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(reader)
        raise
