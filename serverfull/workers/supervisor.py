"""The parent of several workers: starts them, says when all are ready, replaces the dead, passes signals on.

Called by `serverfull.serving` in the main thread. It runs no event loop, starts no thread and imports no function, so
that at any time it can be forked into a clean worker. A worker leaves `Supervisor.run` through ``os._exit`` alone.
"""

from __future__ import annotations

import atexit
import gc
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from json import loads
from typing import Any

from serverfull.config import Settings
from serverfull.errors import StartupError
from serverfull.signals import say
from serverfull.workers.seat import Seat, die_with_parent
from serverfull.workers.shared import SharedMemory
from serverfull.workers.siblings import Siblings, open_doors

SETTLED = 5.0
"""Seconds after which a worker that dies is replaced at once; one that dies earlier is waited for, longer each time."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between a worker's death and its replacement."""

GRACE = 3.0
"""Seconds over ``shutdown_timeout`` (or after a second signal) after which a worker that still runs is killed."""


class WorkerDidNotStart(StartupError):
    """A worker reported why it cannot serve, or died, before all were ready.

    :param exit_code: what the worker would have ended with as the only process.
    :param user_traceback: the user's frames, where the user's code failed.
    """

    def __init__(self, message: str, exit_code: int = 3, user_traceback: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.user_traceback = user_traceback


class _Worker:
    """What the parent knows of one worker; its number outlives its process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0
        self.line: socket.socket | None = None
        self.ready = False
        self.early_deaths = 0
        self.started_at = 0.0
        self.restart_at: float | None = None
        self._heard = b""

    def adopt(self, pid: int, line: socket.socket) -> None:
        """Take over a process that has just been started."""
        line.setblocking(False)
        self.pid, self.line, self.ready, self._heard = pid, line, False, b""
        self.started_at, self.restart_at = time.monotonic(), None

    def hear(self) -> bool:
        """Read what the worker has said; False once there will be no more."""
        if self.line is None:
            return False
        try:
            while data := self.line.recv(65536):
                self._heard += data
        except BlockingIOError:
            return True
        except OSError:  # it died with an order unread
            return False
        return False

    def reports(self) -> list[dict[str, Any]]:
        """Give what the worker has reported since the last time."""
        *lines, self._heard = self._heard.split(b"\n")
        return [loads(line) for line in lines]

    def order(self, text: str) -> None:
        """Send an order; a worker that cannot take it is dead or will be killed at the deadline."""
        if self.line is not None:
            try:
                self.line.send(text.encode() + b"\n")
            except OSError:
                return

    def kill(self) -> None:
        """End the process at once."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    def pause(self) -> float:
        """Say how many seconds after this death the replacement starts."""
        if time.monotonic() - self.started_at >= SETTLED:
            self.early_deaths = 0
            return 0.0
        self.early_deaths += 1
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.early_deaths - 1)))


class Supervisor:
    """Runs ``settings.server.workers`` processes until a signal ends them.

    :param work: what a worker does: serves until it is told to end, and gives its exit status.
    :param settings: its port is a real one, not 0.
    :param port: a bound socket that keeps the port while no worker listens.
    :param url: what the ready line says.
    :param logger: the host's own log.
    """

    def __init__(
        self, work: Callable[[Seat], int], *, settings: Settings, port: socket.socket, url: str, logger: Any
    ) -> None:
        self._work = work
        self._settings = settings
        self._port = port
        self._url = url
        self._logger = logger
        self._numbers = settings.signals.os_signals if settings.signals.installed else ()
        self._workers = [_Worker(number) for number in range(settings.server.workers)]
        self._memory: SharedMemory
        self._doors: list[socket.socket]
        self._announced = False
        self._signal = 0
        self._deadline: float | None = None

    def run(self) -> int:
        """Start the workers and stay until all have ended after a signal.

        :return: the first signal's number.
        :raises WorkerDidNotStart: not all workers came up; those that did are gone again.
        :raises StartupError: this is no place to start processes from.
        """
        if threading.current_thread() is not threading.main_thread() or threading.active_count() > 1:
            raise StartupError(
                "several workers can be started only from a process's main thread while it has no other threads; "
                "set server.workers to 1"
            )
        self._memory = SharedMemory.create(len(self._workers))
        self._doors = open_doors(len(self._workers))
        self._bell = _Bell((*self._numbers, signal.SIGCHLD))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell.ear, selectors.EVENT_READ)
        try:
            gc.freeze()  # what exists now is never collected in a worker, so its pages stay shared
            return self._supervise()
        finally:
            gc.unfreeze()
            self._kill_all()
            self._selector.close()
            self._bell.close()
            self._memory.close()
            for door in self._doors:
                door.close()

    def _supervise(self) -> int:
        for worker in self._workers:
            self._start(worker)
        while True:
            self._selector.select(self._patience())
            for number in self._bell.heard():
                if number != signal.SIGCHLD:
                    self._received(number)
            for worker in self._workers:
                self._listen(worker)
                self._reap(worker)
            self._announce()
            if self._signal and not any(worker.pid for worker in self._workers):
                return self._signal
            self._act_on_time()

    # A worker's life

    def _start(self, worker: _Worker) -> None:
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        with self._bell.silenced() as unmask:  # a signal in between would ring the bell of the parent from the child
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._be_worker(worker.number, theirs, parent, unmask)
        theirs.close()
        worker.adopt(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ)

    def _be_worker(self, number: int, line: socket.socket, parent: int, unmask: Callable[[], None]) -> None:
        status = 1
        try:
            die_with_parent(parent)
            atexit._clear()  # what was registered in the parent is the parent's
            self._bell.leave()
            self._selector.close()
            self._port.close()
            for other in self._workers:
                if other.line is not None:
                    other.line.close()
            siblings = Siblings(number, self._doors)
            for door in self._doors[:number] + self._doors[number + 1 :]:
                door.close()
            unmask()
            seat = Seat(number, self._memory, line, siblings)
            try:
                status = self._work(seat)
            except BaseException as error:
                status = seat.report_failure(error)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def _listen(self, worker: _Worker) -> None:
        goes_on = worker.hear()
        for report in worker.reports():
            if report.get("ready"):
                worker.ready = True
            elif not self._announced and not self._signal:
                raise WorkerDidNotStart(report["message"], report["exit_code"], report["traceback"])
            elif not self._signal:
                self._logger.error("worker failed", worker=worker.number, pid=worker.pid, reason=report["message"])
        if not goes_on:
            self._hang_up(worker)

    def _hang_up(self, worker: _Worker) -> None:
        if worker.line is not None:
            self._selector.unregister(worker.line)
            worker.line.close()
            worker.line = None

    def _reap(self, worker: _Worker) -> None:
        if not worker.pid:
            return
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return
        self._listen(worker)  # its last words may have come since
        worker.pid = 0
        self._hang_up(worker)
        self._memory.clear(worker.number)
        if self._signal:
            return
        if not self._announced:
            raise WorkerDidNotStart(f"a worker {_how(status)} before it was ready")
        pause = worker.pause()
        worker.restart_at = time.monotonic() + pause
        self._logger.error("worker ended", worker=worker.number, pid=pid, how=_how(status), restart_seconds=pause)

    def _announce(self) -> None:
        if not self._announced and not self._signal and all(worker.ready for worker in self._workers):
            self._announced = True
            say(f"serverfull ready {self._url}")

    # The end

    def _received(self, number: int) -> None:
        if self._deadline is None:
            self._signal = number
            self._deadline = time.monotonic() + self._settings.server.shutdown_timeout + GRACE
            order = f"drain {number}"
        else:
            self._deadline = min(self._deadline, time.monotonic() + GRACE)
            order = "end"
        for worker in self._workers:
            if worker.ready:
                worker.order(order)
            else:
                worker.kill()  # it has not served anybody

    def _act_on_time(self) -> None:
        now = time.monotonic()
        if self._deadline is not None:
            if now >= self._deadline:
                self._logger.error("workers killed", reason="they did not end in time")
                self._kill_all()
            return
        for worker in self._workers:
            if worker.restart_at is not None and now >= worker.restart_at:
                self._start(worker)
                self._logger.info("worker started", worker=worker.number, pid=worker.pid)

    def _patience(self) -> float | None:
        due = [worker.restart_at for worker in self._workers if worker.restart_at is not None]
        if self._deadline is not None:
            due = [self._deadline]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            if worker.pid:
                os.waitpid(worker.pid, 0)
                worker.pid = 0
            self._hang_up(worker)


class _Bell:
    """Turns signals into something that a selector sees. Python's handlers themselves do nothing."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.ear, self._clapper = socket.socketpair()
        self.ear.setblocking(False)
        self._clapper.setblocking(False)
        self._before = {number: signal.signal(number, _nothing) for number in numbers}
        self._wakeup_before = signal.set_wakeup_fd(self._clapper.fileno(), warn_on_full_buffer=False)

    def heard(self) -> bytes:
        """Give the numbers of the signals that came since the last time."""
        try:
            return self.ear.recv(4096)
        except BlockingIOError:
            return b""

    def silenced(self) -> _Silence:
        """Hold signals back for the length of a ``with``."""
        return _Silence(self._before)

    def leave(self) -> None:
        """Do without it in a forked process, where until there is a loop the supervisor's signals do nothing."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.ear.close()
        self._clapper.close()

    def close(self) -> None:
        """Put back what was there before."""
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.ear.close()
        self._clapper.close()


class _Silence:
    """Blocks signals; entering gives what unblocks them in a process that never leaves."""

    def __init__(self, numbers: Any) -> None:
        self._numbers = set(numbers)

    def __enter__(self) -> Callable[[], None]:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        return self._unmask

    def __exit__(self, *exc: object) -> None:
        self._unmask()

    def _unmask(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _nothing(number: int, frame: object) -> None:
    """Handle a signal by leaving it to the wake-up descriptor."""


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
