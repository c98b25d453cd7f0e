"""A host in a process of its own, for tests that want the real thing: real sockets, real signals, real exit codes.

Used by the pytest fixtures of `serverfull.testing.fixtures`, and usable without pytest::

    with HostProcess.start("app.py:functions") as host:
        answer = host.invoke("hello", b'{"name": "Ada"}')
        assert answer.json() == "Hello, Ada!"

Two threads per process read its output into lists, so that it never blocks on a full pipe. Everything here is
blocking and made for tests; nothing of it runs in a host.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

READY_MARK = "serverfull ready "
"""How the line starts that a host prints to standard output when it serves; the rest is its URL."""

CLEARED_PREFIXES = ("SERVERFULL_", "AWS_", "_X_AMZN_")
CLEARED_NAMES = frozenset({"PORT", "NOTIFY_SOCKET"})


KILLED_WITHIN = 5.0
"""Seconds within which processes that were killed are gone."""


class HostDidNotStart(AssertionError):
    """The process ended, or said nothing in time, before it was ready; the message holds what it wrote."""


class LinesNotSeen(AssertionError):
    """A line that a test waits for did not come in time; the message holds what came."""


class ProcessesLeftBehind(AssertionError):
    """The host ended and left processes that it had started."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end.

    :param headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Decode the body as JSON."""
        return json.loads(self.body)


class _Lines:
    """What a process writes to one stream, collected by a thread; waiting for a line has a deadline."""

    def __init__(self, stream: IO[str]) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def snapshot(self) -> list[str]:
        with self._changed:
            return list(self._lines)

    def wait_for(self, accept: Callable[[str], bool], timeout: float) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or any(map(accept, self._lines)), timeout)
            return next(filter(accept, self._lines), None)

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)


class HostProcess:
    """A running host.

    :param url: what the ready line said, such as ``http://127.0.0.1:43210``.
    :param port: the port of that URL.
    :param process: the process itself, the leader of a process group of its own.
    """

    url: str
    port: int

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> None:
        self.command = tuple(command)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._stdout = _Lines(self.process.stdout)
        self._stderr = _Lines(self.process.stderr)

    @classmethod
    def start(
        cls,
        target: str | None,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 20.0,
        command: str = "serve",
    ) -> HostProcess:
        """Start ``serverfull serve [TARGET]`` on a free port and wait until it is ready.

        :param target: as on the command line, such as ``app.py:functions``; None: there is none.
        :param args: further arguments; ``--port 0`` is added unless they say another port.
        :param env: variables over the test's own, from which everything that configures a host or an AWS client
            is taken out first.
        :param cwd: the working directory of the host.
        :param timeout: seconds until the host must be ready.
        :param command: another command that serves: ``dev``.
        :raises HostDidNotStart: it is not ready in time, or it ended.
        """
        port = () if "--port" in args else ("--port", "0")
        words = [sys.executable, "-m", "serverfull", command, *([target] if target else ()), *port, *args]
        host = cls(words, plain_environment() | dict(env or {}), cwd)
        try:
            host._wait_until_ready(timeout)
        except BaseException:
            host.kill()
            raise
        return host

    def _wait_until_ready(self, timeout: float) -> None:
        line = self._stdout.wait_for(lambda line: line.startswith(READY_MARK), timeout)
        if line is None:
            self.kill()
            raise HostDidNotStart(self._report("not ready"))
        self.url = line.removeprefix(READY_MARK).split()[0].rstrip("/")
        self.port = urlsplit(self.url).port or 80

    def stdout_lines(self) -> list[str]:
        """Give what the host wrote to standard output so far: the ready line and the functions' log."""
        return self._stdout.snapshot()

    def stderr_lines(self) -> list[str]:
        """Give what the host wrote to standard error so far: its own log."""
        return self._stderr.snapshot()

    def wait_for_stdout(self, text: str, timeout: float = 10.0) -> str:
        """Wait for a line of standard output that contains ``text``; returns the first one.

        :raises LinesNotSeen: none came within ``timeout`` seconds, or before the stream ended.
        """
        return self._seen(self._stdout, text, timeout)

    def wait_for_stderr(self, text: str, timeout: float = 10.0) -> str:
        """Wait for a line of standard error that contains ``text``; returns the first one.

        :raises LinesNotSeen: none came within ``timeout`` seconds, or before the stream ended.
        """
        return self._seen(self._stderr, text, timeout)

    def _seen(self, lines: _Lines, text: str, timeout: float) -> str:
        line = lines.wait_for(lambda line: text in line, timeout)
        if line is None:
            raise LinesNotSeen(self._report(f"no line with {text!r} within {timeout:g} s"))
        return line

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Send one HTTP request on a connection of its own.

        :param path: as it goes over the wire, already percent-encoded.
        :param timeout: seconds that each step of the exchange may take.
        """
        address = urlsplit(self.url)
        with contextlib.closing(http.client.HTTPConnection(address.hostname or "", self.port, timeout=timeout)) as link:
            link.request(method, path, body, dict(headers or {}))
            answer = link.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())

    def invoke(self, name: str, payload: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Invoke a function by name or ARN, without any AWS library."""
        return self.request("POST", f"/2015-03-31/functions/{quote(name, safe='')}/invocations", payload, headers)

    def send_signal(self, number: int) -> None:
        """Send a signal to the host's first process."""
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until the host has ended and its output is read; returns the exit code.

        :raises subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        code = self.process.wait(timeout)
        self._stdout.join(5)
        self._stderr.join(5)
        return code

    def stop(self, timeout: float = 30.0, number: int = signal.SIGTERM) -> int:
        """End the host as an operator would and wait for it; returns the exit code. Stopping twice is fine.

        :raises subprocess.TimeoutExpired: it did not end within ``timeout`` seconds; it is killed then.
        :raises ProcessesLeftBehind: it ended, and processes that it had started still run; they are killed then.
        """
        if self.process.poll() is None:
            self.send_signal(number)
        try:
            code = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        left = list(_members(self.process.pid))
        if left:
            self.kill()
            raise ProcessesLeftBehind(f"{' '.join(self.command)} left processes behind: {left}")
        return code

    def kill(self) -> None:
        """End the host and all that it started at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        gone_by = time.monotonic() + KILLED_WITHIN  # nobody tells when somebody else's children have ended
        while any(_members(self.process.pid)) and time.monotonic() < gone_by:
            time.sleep(0.01)

    def _report(self, what: str) -> str:
        state = "running" if self.process.poll() is None else f"ended with {self.process.returncode}"
        out, err = "\n".join(self.stdout_lines()[-50:]), "\n".join(self.stderr_lines()[-50:])
        return f"{' '.join(self.command)}: {what} ({state})\n--- standard output\n{out}\n--- standard error\n{err}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def plain_environment() -> dict[str, str]:
    """Copy the environment without what would configure a host or an AWS client."""
    return {name: value for name, value in os.environ.items() if not _configures(name)}


def _configures(name: str) -> bool:
    return name in CLEARED_NAMES or name.startswith(CLEARED_PREFIXES)


def _members(group: int) -> Iterator[int]:
    """Find the living processes of a process group or session. A zombie that nobody reaps is not alive."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, member_of, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if state != "Z" and str(group) in (member_of, session):
            yield int(entry.name)
