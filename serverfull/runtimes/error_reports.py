"""Errors as the official Python runtime client (``awslambdaric``) and the Lambda service word them.

Runtimes call this when a handler raised, ended its process or could not be loaded: they get an `ErrorReport`, whose
document goes to the caller and whose `error_log_text` goes to the log. An exception may be hostile: a ``__str__`` that
raises or is very long, a recursion of a million frames. All of that is answered and cut.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from itertools import islice
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from serverfull.domain.limits import ERROR_MESSAGE_BYTES

if TYPE_CHECKING:
    from types import TracebackType

    from serverfull.domain.functions import LogFormat

OUR_FRAMES: tuple[str, ...] = tuple(
    f"{Path(__file__).parent.parent / room}/" for room in ("runtimes", "contracts", "fetchers")
)
"""Traceback frames of files below these paths are the host's, not the user's."""

_BETWEEN = str(Path(__file__).with_name("namespaces.py"))
"""Imports of deployed code go through this file: its frames stand between the user's."""

_MAX_FRAMES = 4_096


class ErrorReport(NamedTuple):
    """An error of a function, ready to be answered and logged.

    :param stack_trace: lines as `traceback.format_list` gives them, from the user's first frame on.
    :param platform: the document holds only the type and the message, as for errors that AWS's service itself reports.
    """

    error_type: str
    message: str
    request_id: str
    stack_trace: tuple[str, ...] = ()
    platform: bool = False

    def document(self) -> bytes:
        """Give the JSON that the caller of Invoke gets."""
        if self.platform:
            return platform_error_document(self.error_type, self.message)
        return error_document(self.error_type, self.message, self.request_id, list(self.stack_trace))


def error_document(error_type: str, message: str, request_id: str, stack_trace: list[str] | None) -> bytes:
    """Give the error document of a function's own error, as the runtime client writes it."""
    text = dumps(_error_fields(error_type, message, request_id, stack_trace), ensure_ascii=False)
    # A lone surrogate becomes its JSON escape, which happens to be what backslashreplace writes.
    return text.encode("utf-8", "backslashreplace")


def _error_fields(error_type: str, message: str, request_id: str, stack_trace: list[str] | None) -> dict[str, Any]:
    return {
        "errorMessage": message,
        "errorType": error_type,
        "requestId": request_id,
        "stackTrace": stack_trace or [],
    }


def platform_error_document(error_type: str, message: str) -> bytes:
    """Give the error document of an error that the service reports: a timeout, an exit, a response over the limit."""
    fields = {"errorType": error_type, "errorMessage": message}
    text = dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def describe_exception(error: BaseException, request_id: str, strip: tuple[str, ...] = OUR_FRAMES) -> ErrorReport:
    """Describe an exception of a handler as the runtime client does: its own traceback only, no causes, no notes.

    :param strip: leading frames of files below these paths are left out. A path ends with a slash.
    """
    return ErrorReport(
        error_type=_type_name(error),
        message=text_of(error),
        request_id=request_id,
        stack_trace=_stack_trace(error.__traceback__, strip),
    )


def _type_name(error: BaseException) -> str:
    # Past any metaclass that has a `__name__` of its own.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


def text_of(error: BaseException) -> str:
    """Give ``str(error)``, whatever its class makes of that, cut to the limit of an error message."""
    try:
        text = str.__str__(str(error))
    except BaseException as broken:  # a broken `__str__` must not end the runtime, whatever it raises
        text = f"<{_type_name(error)}.__str__ failed: {_type_name(broken)}>"
    return _cut(text, ERROR_MESSAGE_BYTES)


def _cut(text: str, most: int) -> str:
    if len(text) * 4 <= most:
        return text
    encoded = text[:most].encode("utf-8", "surrogatepass")
    if len(encoded) > most:
        while encoded[most] & 0xC0 == 0x80:  # within a character
            most -= 1
    return encoded[:most].decode("utf-8", "surrogatepass")


def _stack_trace(trace: TracebackType | None, strip: tuple[str, ...]) -> tuple[str, ...]:
    frames, left_out = _frames(_users(trace, strip))
    # As bare tuples, because these print without the markers under the failing expression, like the official client.
    entries = traceback.format_list([(f.filename, f.lineno or 0, f.name, f.line) for f in frames])
    if left_out:
        entries.insert(len(entries) // 2, f"  [{left_out} frames left out]\n")
    room = ERROR_MESSAGE_BYTES
    for index, entry in enumerate(entries):
        room -= len(entry)
        if room < 0:
            return (*entries[:index], f"  [{len(entries) - index} more entries left out]\n")
    return tuple(entries)


def _users(trace: TracebackType | None, strip: tuple[str, ...]) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(strip):
        trace = trace.tb_next
    return trace


def _frames(trace: TracebackType | None) -> tuple[traceback.StackSummary, int]:
    """Take the frames; of a recursion that is deeper than anyone reads, the two ends."""
    walked = (step for step in traceback.walk_tb(trace) if step[0].f_code.co_filename != _BETWEEN)
    head = list(islice(walked, _MAX_FRAMES // 2))
    tail: deque[Any] = deque(maxlen=_MAX_FRAMES // 2)
    left_out = 0
    for step in walked:
        left_out += len(tail) == tail.maxlen
        tail.append(step)
    return traceback.StackSummary.extract(iter([*head, *tail])), left_out


def error_log_text(report: ErrorReport, log_format: LogFormat, now: float | None = None) -> str:
    """Give what the runtime client writes to the log for an error: one line, with its newline.

    :param now: seconds since the epoch; None means the present.
    """
    if log_format == "JSON":
        fields = _error_fields(report.error_type, report.message, report.request_id, list(report.stack_trace))
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        return dumps({"timestamp": stamp, "level": "ERROR", **fields}, ensure_ascii=False) + "\n"
    title = ": ".join(part for part in (report.error_type, report.message) if part)
    lines = [f"[ERROR] {title}" if title else "[ERROR]", "Traceback (most recent call last):"]
    for entry in report.stack_trace:
        lines += [_indented_hard(line) for line in entry.splitlines()]
    return "\r".join(lines) + "\n"


def _indented_hard(line: str) -> str:
    text = line.lstrip(" ")
    return "\N{NO-BREAK SPACE}" * (len(line) - len(text)) + text


# --------------------------------------------------------------------------------------------------- exits and start-up


def exit_fault(error: BaseException) -> tuple[str, str]:
    """Say how the service reports a handler that ended its process: an exit, or an exception that is no Exception.

    :returns: the error type and the message after ``RequestId: <id> Error: ``.
    """
    if isinstance(error, KeyboardInterrupt):  # the interpreter ends itself with SIGINT
        return "Runtime.ExitError", "Runtime exited with error: signal: interrupt"
    status = _exit_status(error)
    if status == 0:
        return "Runtime.ExitError", "Runtime exited without providing a reason"
    return "Runtime.ExitError", f"Runtime exited with error: exit status {status}"


def exit_report(error: BaseException, request_id: str) -> ErrorReport:
    """Give `exit_fault` as a report with the whole message."""
    error_type, message = exit_fault(error)
    return ErrorReport(error_type, f"RequestId: {request_id} Error: {message}", request_id, (), True)


def _exit_status(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        return 1
    code = error.code
    if code is None:
        return 0
    if not isinstance(code, int):
        return 1
    return code & 0xFF if -(2**63) <= code < 2**63 else 0xFF  # as the interpreter hands it to the system


def last_words(error: BaseException, strip: tuple[str, ...] = OUR_FRAMES) -> str:
    """Give what an interpreter prints when such an exception ends it: a traceback, or the text of an exit."""
    try:
        if isinstance(error, SystemExit):
            code: object = error.code  # whatever the code gave sys.exit()
            if code is None or isinstance(code, int):
                return ""
            return (str.__str__(code) if isinstance(code, str) else text_of(error)) + "\n"
        report = describe_exception(error, "", strip)
    except BaseException:  # the exception's own code runs in there
        return ""
    title = ": ".join(part for part in (report.error_type, report.message) if part)
    return f"Traceback (most recent call last):\n{''.join(report.stack_trace)}{title}\n"


def init_fault(error: BaseException, module: str, strip: tuple[str, ...] = OUR_FRAMES) -> ErrorReport:
    """Describe why the module of a handler could not be loaded; there is no request yet, so no request id."""
    if isinstance(error, ImportError):
        return ErrorReport("Runtime.ImportModuleError", f"Unable to import module '{module}': {text_of(error)}", "")
    if isinstance(error, SyntaxError):
        place = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        text = f"Syntax error in module '{module}': {text_of(error)}"
        return ErrorReport("Runtime.UserCodeSyntaxError", text, "", (place,))
    return describe_exception(error, "", strip)


def handler_missing(handler: str, module: str) -> ErrorReport:
    """Describe a handler that its module does not have."""
    return ErrorReport("Runtime.HandlerNotFound", f"Handler '{handler}' missing on module '{module}'", "")
