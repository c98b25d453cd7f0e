"""The record of an environment's beginning, and those of an invocation: its own, its runtime's end, and what it took.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

import math
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import loads
from serverfull.domain.timestamps import timestamp

if TYPE_CHECKING:
    from serverfull.domain.invocations import Outcome
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.runtime_api.messages import Work


def beginning(identity: FunctionIdentity) -> dict[str, Any]:
    """Give what ``platform.initStart`` and ``platform.restoreStart`` say of the environment that begins."""
    return {
        "functionName": identity.name,
        "functionVersion": identity.version,
        "instanceId": str(uuid.uuid4()),
        "instanceMaxMemory": identity.memory_size,
    }


class Report:
    """What is measured of an invocation, from its beginning on.

    :param restored: how many seconds it took to restore the environment for it, and how many of these are billed.
    :ivar start: the record of ``platform.start``.
    :ivar runtime_done: that of ``platform.runtimeDone``, once `take` has been called.
    """

    def __init__(self, identity: FunctionIdentity, work: Work, restored: tuple[float, float] | None = None) -> None:
        self._identity = identity
        self._restored = restored
        self._began = time.monotonic()
        self._answered = (self._began, 0.0)  # on both clocks
        self._outcome: Outcome | None = None
        tracing = {"type": "X-Amzn-Trace-Id", "value": work.trace_id}
        self._whose = {"requestId": work.request_id, "tracing": tracing}
        self.start: dict[str, Any] = {**self._whose, "version": identity.version}
        self.runtime_done: dict[str, Any] = {}

    def take(self, outcome: Outcome) -> str:
        """Take how the runtime has ended it; gives what ended the environment with it, empty: nothing did."""
        self._outcome = outcome
        self._answered = time.monotonic(), time.time()
        took = self._milliseconds(self._answered[0])
        metrics = {"durationMs": took, "producedBytes": len(outcome.payload)}
        self.runtime_done = {**self._whose, **self._status(outcome.status), "metrics": metrics}
        if not outcome.ended_by and outcome.status != "timeout":
            return ""
        with suppress(ValueError, TypeError, KeyError):
            return str(loads(outcome.payload)["errorMessage"])
        return outcome.ended_by or outcome.status

    def finish(self, status: str = "", *, waited: bool = False) -> dict[str, Any]:
        """Give the record of ``platform.report``.

        :param status: where it is another than that of the runtime.
        :param waited: for extensions, since the runtime was done.
        """
        outcome, now = self._outcome, time.monotonic()
        assert outcome is not None
        took = self._milliseconds(now)
        before: dict[str, float] = {}
        billed = 0.0
        if self._restored is not None:
            before["restoreDurationMs"], billed = (round(each * 1000.0, 3) for each in self._restored)
            before["billedRestoreDurationMs"] = math.ceil(billed)
        elif outcome.init_seconds is not None:
            billed = before["initDurationMs"] = round(outcome.init_seconds * 1000.0, 3)
        metrics: dict[str, Any] = {
            "durationMs": took,
            "billedDurationMs": math.ceil(took + billed),
            "memorySizeMB": self._identity.memory_size,
            "maxMemoryUsedMB": outcome.memory_mb or 0,
            **before,
        }
        record = {**self._whose, **self._status(status or outcome.status), "metrics": metrics}
        if waited:
            since, at = self._answered
            span: Any = {
                "name": "extensionOverhead",
                "start": timestamp(at),
                "durationMs": round((now - since) * 1000.0, 3),
            }
            record["spans"] = [span]
        return record

    def _status(self, status: str) -> dict[str, str]:
        error = "" if self._outcome is None else self._outcome.ended_by
        return {"status": status, "errorType": error} if error else {"status": status}

    def _milliseconds(self, until: float) -> float:
        return round((until - self._began) * 1000.0, 3)
