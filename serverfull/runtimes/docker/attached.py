"""The output of a container whose image has no shell that would lead it into a named pipe: by way of the engine.

What arrives before an answer and what arrives after it depends on the engine then; all of it arrives.
"""

from __future__ import annotations

import asyncio
import codecs
import socket
from collections.abc import Callable

from serverfull.runtimes.docker.engine import PATIENCE, EngineGone

_CHUNK = 65_536
_MOST_AT_ONCE = 4
_MOST_HEAD = 16_384
_HEAD = 8
"""Bytes before each piece: which stream it is of, and how long it is.

Engine: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
"""


class AttachedLog:
    """Reads what the engine passes on of a container's output.

    :param write: takes text; called on the loop.
    :param at_end: called when there is no more.
    """

    def __init__(self, write: Callable[[str], object], at_end: Callable[[], object] = lambda: None) -> None:
        self._write = write
        self._at_end = at_end
        self._loop = asyncio.get_running_loop()
        self._line: socket.socket | None = None
        self._reading = False
        self._heard = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def attach(self, address: str, container: str) -> None:
        """Have the engine pass on the output of a container that is not started yet; called on a thread.

        :param address: of the engine.
        :raises EngineGone: it does not.
        """
        self._line, said = upgraded(address, f"/containers/{container}/attach?stdout=1&stderr=1&stream=1")
        self._heard += said

    def take(self, line: socket.socket, said: bytes) -> None:
        """Pass on what comes by a line, from now on.

        :param said: what has come by it already.
        """
        self._line = line
        self._heard += said
        self._pass_on()
        self.read()

    def read(self) -> None:
        """Pass on what comes, from now on."""
        if self._line is not None:
            self._reading = True
            self._loop.add_reader(self._line, self._read)

    def drain(self) -> None:
        """Pass on what has come until now."""
        self._read()

    def close(self) -> None:
        """Pass on what is left, and close. Closing twice is fine."""
        self._read()
        self._end()

    def _read(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            if self._line is None:
                return
            try:
                data = self._line.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._end()
                return
            self._heard += data
            self._pass_on()

    def _pass_on(self) -> None:
        heard = self._heard
        text = b""
        while len(heard) >= _HEAD:
            end = _HEAD + int.from_bytes(heard[4:_HEAD], "big")
            if len(heard) < end:
                break
            text += heard[_HEAD:end]
            del heard[:end]
        if text and (decoded := self._decoder.decode(text)):
            self._write(decoded)

    def _end(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        if self._reading:
            self._loop.remove_reader(line)
        line.close()
        rest = self._decoder.decode(b"", final=True)
        if rest:
            self._write(rest)
        self._at_end()


def upgraded(address: str, path: str, body: bytes = b"") -> tuple[socket.socket, bytes]:
    """Ask the engine for something that has a line of its own; called on a thread.

    The package's own calls lose what comes right behind the headers of the answer, and forget to close.

    :param address: of the engine.
    :return: the line, and what has come by it already.
    :raises EngineGone: it does not give one.
    """
    line = socket.socket(socket.AF_UNIX)
    try:
        line.settimeout(PATIENCE)
        line.connect(address.removeprefix("unix://"))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        line.sendall(head.encode() + body)
        heard = b""
        while b"\r\n\r\n" not in heard and len(heard) < _MOST_HEAD:
            data = line.recv(4096)
            if not data:
                break
            heard += data
        answer, _, said = heard.partition(b"\r\n\r\n")
        if not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
            raise EngineGone(f"the Docker engine refuses {path}: {heard[:200].decode('utf-8', 'replace')}")
        line.setblocking(False)
    except OSError as error:
        line.close()
        raise EngineGone(f"the Docker engine does not answer to {path}: {error}") from None
    except BaseException:
        line.close()
        raise
    return line, said
