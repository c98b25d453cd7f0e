"""Errors as the official Python client words them, whatever the exception makes of that."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

LONGEST = 262_144
"""Bytes of a message, and of a stack trace: a hostile ``__str__`` costs nobody memory."""

_MOST_FRAMES = 4_096
_INDENT = "\N{NO-BREAK SPACE}"
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LOOP = os.sep + "asyncio" + os.sep


class Fault(Exception):
    """Something is wrong that the client itself finds: the event, the context, the result, or the handler's name.

    :param trace: what stands for a stack trace.
    """

    def __init__(self, error_type: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.message = message
        self.trace = trace or []

    def fields(self, request_id: str) -> dict[str, Any]:
        """Give the error document."""
        return fields(self.error_type, self.message, request_id, self.trace)


def fields(error_type: str, message: str, request_id: str, trace: list[str]) -> dict[str, Any]:
    """Give an error document."""
    return {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": trace}


def of_exception(error: BaseException, request_id: str) -> dict[str, Any]:
    """Give the error document of a handler's exception: its own traceback only, no causes, no notes."""
    return fields(type_name(error), text_of(error), request_id, _stack_trace(error.__traceback__))


def type_name(error: BaseException) -> str:
    """Give the name of the class, past any metaclass that has a ``__name__`` of its own."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


def text_of(error: BaseException) -> str:
    """Give ``str(error)``, cut to the limit."""
    try:
        text = str.__str__(str(error))
    except BaseException as broken:  # it must not end the process, whatever it raises
        text = f"<{type_name(error)}.__str__ failed: {type_name(broken)}>"
    return _cut(text)


def _cut(text: str) -> str:
    if len(text) * 4 <= LONGEST:
        return text
    encoded = text[:LONGEST].encode("utf-8", "surrogatepass")
    return encoded[:LONGEST].decode("utf-8", "surrogatepass" if len(encoded) <= LONGEST else "ignore")


def _stack_trace(trace: Any) -> list[str]:
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    found, left_out = _frames(trace)
    # As bare tuples, because these print without the markers under the failing expression, like the official client.
    entries = traceback.format_list([(f.filename, f.lineno or 0, f.name, f.line) for f in found])
    if left_out:
        entries.insert(len(entries) // 2, f"  [{left_out} frames left out]\n")
    room = LONGEST
    for index, entry in enumerate(entries):
        room -= len(entry)
        if room < 0:
            return [*entries[:index], f"  [{len(entries) - index} more entries left out]\n"]
    return entries


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) or (_LOOP in file and file.rpartition(_LOOP)[0] == os.path.dirname(os.__file__))


def _frames(trace: Any) -> tuple[Any, int]:
    """Take the frames; of a recursion that is deeper than anyone reads, the two ends."""
    walked = traceback.walk_tb(trace)
    head = list(islice(walked, _MOST_FRAMES // 2))
    tail: deque[Any] = deque(maxlen=_MOST_FRAMES // 2)
    left_out = 0
    for step in walked:
        left_out += len(tail) == tail.maxlen
        tail.append(step)
    return traceback.StackSummary.extract(iter([*head, *tail])), left_out


def log_line(error: dict[str, Any], encode: Callable[[Any], str] | None) -> str:
    """Give what is logged for an error: one line, with its newline.

    :param encode: makes JSON of it; None: the log is text.
    """
    if encode is not None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return encode({"timestamp": stamp, "level": "ERROR", **error}) + "\n"
    title = ": ".join(part for part in (error["errorType"], error["errorMessage"]) if part)
    lines = [f"[ERROR] {title}" if title else "[ERROR]", "Traceback (most recent call last):"]
    for entry in error["stackTrace"]:
        lines += [_indented_hard(line) for line in entry.splitlines()]
    return "\r".join(lines) + "\n"


def _indented_hard(line: str) -> str:
    text = line.lstrip(" ")
    return _INDENT * (len(line) - len(text)) + text
