"""What a caller is answered: the outcomes of invocations, as the runtime answered them or as AWS words their ends."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from serverfull.domain.invocations import Outcome
from serverfull.domain.json_functions import loads
from serverfull.runtimes import failures
from serverfull.runtimes.error_reports import platform_error_document
from serverfull.runtimes.runtime_api.extensions import ExtensionFailed

if TYPE_CHECKING:
    from serverfull.runtimes.runtime_api.messages import Answer
    from serverfull.runtimes.sandboxes.launching import Gone

_UNSAID = ("", "application/x-www-form-urlencoded")
"""What a runtime posts that has not thought about its content type; the second is curl's."""


def answered(answer: Answer) -> Outcome:
    """Give the outcome of an invocation whose runtime has answered."""
    if answer.error:
        return Outcome(answer.payload, failures.UNHANDLED, status="error")
    content_type = "application/json" if answer.content_type in _UNSAID else answer.content_type
    return Outcome(answer.payload, None, content_type)


def error_type_of(answer: Answer) -> str:
    """Say what a runtime calls the error for which it could not load its function."""
    with suppress(ValueError, TypeError, KeyError):
        return str(loads(answer.payload)["errorType"])
    return "Runtime.Unknown"


def error_type_of_end(gone: Gone | ExtensionFailed) -> str:
    """Say what AWS calls the end of an instance."""
    return gone.error_type if isinstance(gone, ExtensionFailed) else "Runtime.ExitError"


def exited(gone: Gone | ExtensionFailed, request_id: str) -> Outcome:
    """Give AWS's answer for an instance that ended by itself, or whose extension has failed."""
    why = gone.why
    if isinstance(gone, ExtensionFailed):
        return _ended(gone.error_type, why, request_id)
    said = f"Runtime exited with error: {why}" if why else "Runtime exited without providing a reason"
    return _ended("Runtime.ExitError", said, request_id)


def unstartable(why: str, request_id: str) -> Outcome:
    """Give AWS's answer for a program that cannot be executed."""
    return _ended("Runtime.InvalidEntrypoint", why, request_id)


def _ended(error_type: str, said: str, request_id: str) -> Outcome:
    """Give AWS's answer where the instance has ended, or never began.

    :param request_id: of the call that it was for; empty: it was started before there was one.
    """
    whose = f"RequestId: {request_id} " if request_id else ""
    document = platform_error_document(error_type, f"{whose}Error: {said}")
    return Outcome(document, failures.UNHANDLED, status="error", ended_by=error_type)
