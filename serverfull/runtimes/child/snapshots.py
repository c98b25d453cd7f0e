"""A process that has loaded a function's code and is forked for each environment of it: what both sides of that do.

The zygote sends the numbers of a launch over the control socket, with four descriptors: its order, the log, a
connection to the environment's Runtime API, and the pipe by which it says that it has begun. The snapshot forks twice,
so that the new process is the zygote's like any other that it launches, and no child of the snapshot's. The new process
tells the zygote which launch it is; the kernel says which process that came from.

The order of what the new process does to itself is that of `births.begin`; what the snapshot has it has already.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import socket
import time
from typing import Any

from . import births, carrying, confine
from .copying import copy_folder

_ADOPTION = 5.0
"""Seconds within which the zygote must have become the parent."""


class Snapshot:
    """This process, once it has loaded the function's code.

    :param control: the descriptor of the socket that orders come by.
    :param line: that of the connection to the host.
    :ivar held: in a process that was made of it: whether that asks its host when it may go on.
    """

    def __init__(self, control: int, line: int) -> None:
        self._control = control
        self._line = line
        self._kept = frozenset((0, 1, 2, control, line))
        self._zygote = os.getppid()
        self.held = False

    def hindrance(self) -> str:
        """Say why no other process can be made of this one; empty: any number can."""
        return carrying.hindrance(self._kept)

    def serve(self) -> socket.socket:
        """Make processes of this one until it is ended; gives, in each of these, its connection to the host."""
        carrying.hang_up(self._kept)
        files = carrying.OpenFiles(self._kept)
        gc.collect()
        gc.freeze()  # so that no page of what is shared is touched by looking for garbage
        control = socket.socket(fileno=self._control)
        while True:
            message, descriptors = births.receive(control)
            if not message:
                os._exit(0)
            content, log, line, report = descriptors
            if self._divided(report):
                try:
                    mark, number = map(int, message.split())
                    control.send(b"%d" % number)
                    control.close()
                    order = births.read(content)
                    os.close(content)
                    return self._be_restored(order, mark, log, line, report, files)
                except BaseException as error:  # nothing may run on as a second snapshot
                    _say(report, error)
                    os._exit(127)
            for descriptor in descriptors:
                os.close(descriptor)

    @staticmethod
    def _divided(report: int) -> bool:
        """Fork, and say in the new process that it is that."""
        try:
            between = os.fork()
        except OSError as error:
            _say(report, error)
            return False
        if between:
            with contextlib.suppress(ChildProcessError):  # the function has a way of its own with its children
                os.waitpid(between, 0)
            return False
        try:
            if os.fork() == 0:
                return True
        except OSError as error:
            _say(report, error)
        os._exit(0)

    def _be_restored(
        self, order: dict[str, Any], mark: int, log: int, line: int, report: int, files: carrying.OpenFiles
    ) -> socket.socket:
        os.close(self._line)
        until = time.monotonic() + _ADOPTION
        while os.getppid() != self._zygote:
            if time.monotonic() > until:
                raise TimeoutError("the snapshot has other parents for its children than the zygote")
            os.sched_yield()
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(births.MARK, (mark, mark))
        confine.apply_again(order.get("limits") or {}, self._zygote, copy_folder)
        with contextlib.suppress(OSError):  # where it lay in /tmp, it is another folder now
            os.chdir(os.getcwd())
        files.separate()
        os.environ.update(order["environment"])
        self.held = order.get("held", False)
        os.close(report)
        return socket.socket(fileno=line)


def _say(report: int, error: BaseException) -> None:
    with contextlib.suppress(OSError):
        os.write(report, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:4000])
