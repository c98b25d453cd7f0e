"""What the host itself says about an invocation and its environment, in the lines and records of AWS.

A JSON log has a record for each event, which AWS gives a level; a function's ``SystemLogLevel`` leaves out those below
it. A text log has START, END and REPORT, and INIT_REPORT where the code could not be loaded. Each function here gives
whole lines, or nothing.

Levels: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
Records: https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from serverfull.domain.json_functions import dumps
from serverfull.domain.log_levels import RANKS
from serverfull.domain.timestamps import timestamp

if TYPE_CHECKING:
    from serverfull.interfaces import FunctionIdentity

SUCCESS = "success"
TIMEOUT = "timeout"
ON_DEMAND = "on-demand"
SNAP_START = "snap-start"


def start(identity: FunctionIdentity, request_id: str, at: float) -> str:
    """Say that an invocation begins."""
    if identity.log_format != "JSON":
        return f"START RequestId: {request_id} Version: {identity.version}\n"
    if not _shows(identity, "INFO"):
        return ""
    return (
        f'{{"time":"{timestamp(at)}","type":"platform.start","record":'
        f'{{"requestId":"{request_id}","version":"{identity.version}"}}}}\n'
    )


def end(
    identity: FunctionIdentity,
    request_id: str,
    *,
    ms: float,
    status: str,
    memory_mb: int,
    init_ms: float | None,
    early_ms: float | None = None,
    restore_ms: tuple[float, float] | None = None,
    trace_id: str | None,
    ended_by: str = "",
) -> str:
    """Say how an invocation has ended.

    :param ms: milliseconds that the handler took.
    :param status: ``success``, ``error`` or ``timeout``.
    :param memory_mb: the most that was used.
    :param init_ms: milliseconds that the code took to load for this call; None: it was there.
    :param early_ms: those that it took before, where this is the first call of an environment that was kept ready.
    :param restore_ms: milliseconds that it took to make the environment of a snapshot for this call, and how many of
        them are billed; None: it was not.
    :param ended_by: the error that ended the environment, if one did.
    """
    if restore_ms is not None:
        init_ms = None
    billed = math.ceil(ms if init_ms is None else ms + init_ms)  # AWS bills both
    if restore_ms is not None:
        billed = math.ceil(ms + restore_ms[1])
    if init_ms is None:
        init_ms = early_ms
    if identity.log_format != "JSON":
        init = "" if init_ms is None else f"Init Duration: {init_ms:.2f} ms\t"
        if restore_ms is not None:
            init += (
                f"Restore Duration: {restore_ms[0]:.2f} ms\tBilled Restore Duration: {math.ceil(restore_ms[1])} ms\t"
            )
        late = ended = ""
        if status == TIMEOUT:
            late, ended = timed_out(identity, request_id), "Status: timeout\t"
        elif ended_by:
            ended = f"Status: {status}\tError Type: {ended_by}\t"
        return (
            f"{late}END RequestId: {request_id}\n"
            f"REPORT RequestId: {request_id}\tDuration: {ms:.2f} ms\tBilled Duration: {billed} ms\t"
            f"Memory Size: {identity.memory_size} MB\tMax Memory Used: {memory_mb} MB\t{init}{ended}\n"
            f"{_xray_line(trace_id) if trace_id else ''}"
        )
    said = timed_out(identity, request_id) if status == TIMEOUT else ""
    now = timestamp(time.time())
    error = f',"errorType":"{ended_by}"' if ended_by else ""
    if _shows(identity, "DEBUG" if status == SUCCESS else "WARN"):
        said += (
            f'{{"time":"{now}","type":"platform.runtimeDone","record":'
            f'{{"requestId":"{request_id}","status":"{status}"{error},"metrics":{{"durationMs":{ms:.3f}}}}}}}\n'
        )
    if _shows(identity, "INFO" if status == SUCCESS else "WARN"):
        init = "" if init_ms is None else f',"initDurationMs":{init_ms:.3f}'
        if restore_ms is not None:
            restore, billed_restore = restore_ms[0], math.ceil(restore_ms[1])
            init += f',"restoreDurationMs":{restore:.3f},"billedRestoreDurationMs":{billed_restore}'
        said += (
            f'{{"time":"{now}","type":"platform.report","record":'
            f'{{"requestId":"{request_id}","metrics":{{"durationMs":{ms:.3f},"billedDurationMs":{billed},'
            f'"memorySizeMB":{identity.memory_size},"maxMemoryUsedMB":{memory_mb}{init}}},"status":"{status}"{error}}}}}\n'
        )
    return said


def restore_start(identity: FunctionIdentity, runtime: str, at: float) -> str:
    """Say that an environment begins to be made of a snapshot. There is no runtime version of AWS's, as at a start.

    :param runtime: such as ``python3.12``.
    """
    if identity.log_format != "JSON":
        return f"RESTORE_START Runtime Version: {_runtime_version(runtime)}\n"
    if not _shows(identity, "DEBUG"):
        return ""
    record = {"functionName": identity.name, "functionVersion": identity.version}
    return _record("platform.restoreStart", at, record)


def restore_end(identity: FunctionIdentity, *, ms: float, status: str, error_type: str) -> str:
    """Say how making an environment of a snapshot has ended.

    :param status: ``success``, ``error`` or ``timeout``.
    :param error_type: of an error; empty: there is none.
    """
    failed = status != SUCCESS
    if identity.log_format != "JSON":
        how = f"\tStatus: {status}" if failed else ""
        kind = f"\tError Type: {error_type}" if error_type else ""
        return f"RESTORE_REPORT Restore Duration: {ms:.2f} ms{how}{kind}\n"
    said, now = "", time.time()
    record: dict[str, object] = {"status": status, **({"errorType": error_type} if error_type else {})}
    if _shows(identity, "WARN" if failed else "DEBUG"):
        said = _record("platform.restoreRuntimeDone", now, record)
    if _shows(identity, "WARN" if failed else "INFO"):
        said += _record("platform.restoreReport", now, {**record, "metrics": {"durationMs": round(ms, 3)}})
    return said


def init_start(identity: FunctionIdentity, how: str, phase: str, at: float, runtime: str = "") -> str:
    """Say that code begins to be loaded. There is no runtime version of AWS's, so it is said at DEBUG.

    :param how: ``on-demand``, ``provisioned-concurrency`` or ``snap-start``.
    :param runtime: of code that is loaded for a snapshot, which a text log says too.
    :param phase: ``init``, or ``invoke`` where it is loaded once more in the time of an invocation.
    """
    if identity.log_format != "JSON" and runtime:
        return f"INIT_START Runtime Version: {_runtime_version(runtime)}\n"
    if identity.log_format != "JSON" or not _shows(identity, "DEBUG"):
        return ""
    record = {
        "initializationType": how,
        "phase": phase,
        "functionName": identity.name,
        "functionVersion": identity.version,
    }
    return _record("platform.initStart", at, record)


def init_end(identity: FunctionIdentity, how: str, phase: str, *, ms: float, status: str, error_type: str) -> str:
    """Say how loading code has ended.

    :param status: ``success``, ``error`` or ``timeout``.
    :param error_type: of an error; empty: there is none.
    """
    if identity.log_format != "JSON":
        if status == SUCCESS:
            return f"INIT_REPORT Init Duration: {ms:.2f} ms\n" if how == SNAP_START else ""
        kind = f"\tError Type: {error_type}" if error_type else ""
        return f"INIT_REPORT Init Duration: {ms:.2f} ms\tPhase: {phase}\tStatus: {status}{kind}\n"
    said, now = "", time.time()
    record: dict[str, object] = {"initializationType": how, "phase": phase, "status": status}
    if error_type:
        record["errorType"] = error_type
    failed = status != SUCCESS
    if _shows(identity, "WARN" if failed else "DEBUG"):
        said = _record("platform.initRuntimeDone", now, record)
    if _shows(identity, "WARN" if failed else "DEBUG" if how == ON_DEMAND else "INFO"):
        said += _record("platform.initReport", now, {**record, "metrics": {"durationMs": round(ms, 3)}})
    return said


def _runtime_version(runtime: str) -> str:
    """Give a runtime as AWS's log writes it, as far as it is known here."""
    return runtime.replace("python", "python:")


def extension(identity: FunctionIdentity, name: str, state: str, events: Sequence[str], error_type: str) -> str:
    """Say how the initialisation of an extension went.

    :param state: ``Ready``, or one of a failure.
    :param error_type: empty: there is none.
    """
    if identity.log_format != "JSON":
        said = f"EXTENSION\tName: {name}\tState: {state}\tEvents: [{', '.join(events)}]"
        return _on_one_line(f"{said}\tError Type: {error_type}" if error_type else said) + "\n"
    if not _shows(identity, "INFO" if state == "Ready" else "WARN"):
        return ""
    record: dict[str, object] = {"name": name, "state": state, "events": list(events)}
    if error_type:
        record["errorType"] = error_type
    return _record("platform.extension", time.time(), record)


def subscription(identity: FunctionIdentity, api: str, name: str, types: Sequence[str]) -> str:
    """Say that an extension has subscribed to streams.

    :param api: ``telemetry`` or ``logs``.
    """
    if identity.log_format != "JSON":
        streams = ", ".join(stream.capitalize() for stream in types)
        return _on_one_line(f"{api.upper()}\tName: {name}\tState: Subscribed\tTypes: [{streams}]") + "\n"
    if not _shows(identity, "INFO"):
        return ""
    kind = "platform.telemetrySubscription" if api == "telemetry" else "platform.logsSubscription"
    return _record(kind, time.time(), {"name": name, "state": "Subscribed", "types": list(types)})


def timed_out(identity: FunctionIdentity, request_id: str) -> str:
    """Say so in AWS's words; in a JSON log it is a line as one of the function's that is no record."""
    if identity.application_log_level is not None and RANKS[identity.application_log_level] > RANKS["INFO"]:
        return ""
    return f"{timestamp(time.time())} {request_id} Task timed out after {identity.timeout:.2f} seconds\n\n"


def _on_one_line(text: str) -> str:
    """Make names harmless that somebody else has chosen, who might want to write lines that look like ours."""
    return "".join(letter if letter.isprintable() or letter == "\t" else " " for letter in text)


def _shows(identity: FunctionIdentity, level: str) -> bool:
    return RANKS[level] >= RANKS[identity.system_log_level or "INFO"]


def _record(kind: str, at: float, record: Mapping[str, object]) -> str:
    return dumps({"time": timestamp(at), "type": kind, "record": record}, separators=(",", ":")) + "\n"


def _xray_line(trace_id: str) -> str:
    root = trace_id.partition("Root=")[2].partition(";")[0]
    if not root or not root.replace("-", "").isalnum():
        return ""
    return f"XRAY TraceId: {root}\tSampled: {str('Sampled=1' in trace_id).lower()}\n"
