"""Turns what went wrong in a handler into the outcome and the log lines that AWS gives for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.contracts.validation import EventInvalid
from serverfull.domain.invocations import Outcome
from serverfull.errors import CodeBroken
from serverfull.runtimes.error_reports import (
    ErrorReport,
    describe_exception,
    error_document,
    error_log_text,
    exit_report,
    init_fault,
    last_words,
    platform_error_document,
)
from serverfull.runtimes.loading import LoadFault
from serverfull.runtimes.marshal import MarshalFault

if TYPE_CHECKING:
    from serverfull.domain.functions import LogFormat
    from serverfull.interfaces import InvocationLog

UNHANDLED = "Unhandled"
"""The one value that AWS still gives ``X-Amz-Function-Error``."""


def describe(error: BaseException, request_id: str, log: InvocationLog, log_format: LogFormat) -> Outcome:
    """Give the outcome of a handler that raised, and write its error line to the log.

    An exception that is no `Exception` (``SystemExit``, ``KeyboardInterrupt``) would have ended the runtime's process
    on AWS and is reported as such; here it ends the invocation alone.
    """
    try:
        return _describe(error, request_id, log, log_format)
    except BaseException:  # the exception's own code runs in there; whatever that does, the caller gets an answer
        name: str = type.__dict__["__name__"].__get__(type(error))
        text = "What was raised cannot be described."
        return Outcome(error_document(name, text, request_id, None), UNHANDLED, status="error")


def _describe(error: BaseException, request_id: str, log: InvocationLog, log_format: LogFormat) -> Outcome:
    report = _report(error, request_id)
    if not isinstance(error, Exception):
        log.write(last_words(error))
    elif not report.platform:
        log.write(error_log_text(report, log_format))
    ended_by = "" if isinstance(error, Exception) else report.error_type
    return Outcome(report.document(), UNHANDLED, status="error", ended_by=ended_by)


def _report(error: BaseException, request_id: str) -> ErrorReport:
    if isinstance(error, (MarshalFault, LoadFault)):
        return error.report(request_id)
    if isinstance(error, CodeBroken):
        return init_fault(error.cause, error.module)._replace(request_id=request_id)
    if isinstance(error, EventInvalid):
        return ErrorReport(error.error_type, error.message, request_id)
    if isinstance(error, Exception):
        return describe_exception(error, request_id)
    return exit_report(error, request_id)


def timed_out(request_id: str, timeout: float) -> Outcome:
    """Give the outcome of a handler that did not end in time; the end of its log has AWS's line about it.

    :param timeout: seconds that it had.
    """
    said = f"RequestId: {request_id} Error: Task timed out after {timeout:.2f} seconds"
    return Outcome(platform_error_document("Sandbox.Timedout", said), UNHANDLED, status="timeout")
