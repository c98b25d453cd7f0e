"""How long the code of a sandbox takes to load: told to the log of the call that it is for, and to telemetry."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from serverfull.runtimes.telemetry.reports import beginning

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.telemetry.hub import Telemetry


class Loading:
    """How long the code took to load, for the log of the invocation that it was for, or of the first one after it.

    :param identity: of the function.
    :param how: it is done.
    """

    def __init__(self, identity: FunctionIdentity, how: str) -> None:
        self._beginning = beginning(identity)
        self._how = how
        self._tried = False
        self._record: dict[str, str] = {}
        self._telemetry: Telemetry
        self._at = 0.0
        self._began = 0.0
        self._ended: tuple[float, str, str] = (0.0, "", "")
        self._notes: list[Callable[[InvocationLog], object]] = []
        self.untold = False

    def note(self, log: InvocationLog | None, tell: Callable[[InvocationLog], object]) -> None:
        """Have a log told something, as soon as there is one."""
        if log is None:
            self._notes.append(tell)
        else:
            tell(log)

    def begin(self, log: InvocationLog | None, telemetry: Telemetry, runtime: str = "") -> None:
        """Code begins to be loaded.

        :param telemetry: hears of it too.
        :param runtime: of code that is loaded for a snapshot, such as ``python3.12``.
        """
        self._at, self._began = time.time(), time.monotonic()
        self._record = {"initializationType": self._how, "phase": "invoke" if self._tried else "init"}
        self._tried = True
        self._telemetry = telemetry
        telemetry.platform("initStart", {**self._record, **self._beginning}, self._at)
        if log is not None:
            log.initialising(self._how, self._at, runtime)

    def end(self, log: InvocationLog | None, status: str, error_type: str = "") -> None:
        """It has ended."""
        self._ended = time.monotonic() - self._began, status, error_type
        record = {**self._record, "status": status}
        if error_type:
            record["errorType"] = error_type
        self._telemetry.platform("initRuntimeDone", record)
        metrics = {"durationMs": round(self._ended[0] * 1000.0, 3)}
        self._telemetry.platform("initReport", {**record, "metrics": metrics})
        self.untold = log is None
        if log is not None:
            log.initialised(*self._ended)

    def tell(self, log: InvocationLog, written: str) -> None:
        """Tell what no log has heard yet.

        :param written: by the code while it was loaded.
        """
        self.untold = False
        log.initialising(self._how, self._at)
        log.write(written)
        notes, self._notes = self._notes, []
        for tell in notes:
            tell(log)
        log.initialised(*self._ended)
