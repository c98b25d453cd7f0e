"""A worker's place under its supervisor: its number, the shared memory, and the line to the parent.

The line is a socket pair. Up goes one report (ready, or why not), down come orders (``drain N``, ``end``); its end
means that the parent is gone, and a worker does not outlive it. Orders and not signals stop a worker, because a Ctrl-C
at a terminal reaches workers too and must not count twice.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING

from serverfull.errors import ConfigurationError, ServerfullError
from serverfull.observability.metrics import Metrics
from serverfull.workers.shared_admission import SharedAdmission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serverfull.domain.functions import Function
    from serverfull.workers.shared import SharedMemory
    from serverfull.workers.siblings import Siblings

SAMPLE_EVERY = 1.0
"""Seconds between two writings of a worker's own gauges; a scrape may ask another worker for them."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker was given by its supervisor.

    :param number: 0 for the first worker; also its row in the shared cells.
    :param memory: what it shares with the others.
    :param line: its end of the line to the supervisor.
    :param siblings: how it asks the others, and they ask it.
    """

    number: int
    memory: SharedMemory
    line: socket.socket
    siblings: Siblings

    def metrics(self, functions: Mapping[str, Function]) -> Metrics:
        """Make the metrics of this worker, in memory that every worker reads."""
        return Metrics(self.memory.figure_cells(self.number), functions)

    def admission(self, limit: int, functions: Mapping[str, Function]) -> SharedAdmission:
        """Make what keeps limits of concurrency true over all workers.

        :param limit: invocations of all functions at once.
        """
        limited = [name for name, function in functions.items() if function.max_concurrency is not None]
        return SharedAdmission(limit, self.memory.permit_cells(self.number), self.memory.lock, limited)

    def report_ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self._report({"ready": True})

    def report_failure(self, error: BaseException) -> int:
        """Tell the supervisor why this worker does not serve; it is the one who says so to people.

        :return: the exit status that fits.
        """
        expected = isinstance(error, ServerfullError)
        code = 2 if isinstance(error, ConfigurationError) else getattr(error, "exit_code", 1)
        trace = getattr(error, "user_traceback", "") if expected else "".join(traceback.format_exception(error))
        self._report({"message": str(error) or type(error).__name__, "traceback": trace, "exit_code": code})
        return int(code)

    def _report(self, report: dict[str, object]) -> None:
        self.line.setblocking(True)
        try:
            self.line.sendall(dumps(report).encode() + b"\n")
        except OSError:  # the supervisor is gone; what watches the line ends this process
            return

    @contextmanager
    def attended(
        self, drain: Callable[[int], None], end: Callable[[], None], sample: Callable[[], None]
    ) -> Iterator[None]:
        """Listen to the supervisor on the running loop.

        :param drain: begins a drain; gets the number of the signal that the supervisor received.
        :param end: ends at once.
        :param sample: writes down this worker's gauges; called now and then.
        """
        loop = asyncio.get_running_loop()
        self.line.setblocking(False)
        loop.add_reader(self.line, self._hear, drain, end)
        sampling = loop.create_task(_sample_again_and_again(sample), name="serverfull-samples")
        try:
            yield
        finally:
            loop.remove_reader(self.line)
            sampling.cancel()

    def _hear(self, drain: Callable[[int], None], end: Callable[[], None]) -> None:
        orders = self.line.recv(4096)
        if not orders:
            os._exit(1)
        for order in orders.decode().splitlines():
            word, _, number = order.partition(" ")
            drain(int(number)) if word == "drain" else end()


async def _sample_again_and_again(sample: Callable[[], None]) -> None:
    while True:
        sample()
        await asyncio.sleep(SAMPLE_EVERY)


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, however that happens.

    :param parent: the parent's process id, read before the fork.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the kernel was told
        os._exit(1)
