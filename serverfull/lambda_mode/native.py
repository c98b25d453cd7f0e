"""Calls one function the way that AWS's runtime client (``awslambdaric``) calls handlers: with the event and a context.

The client calls a `NativeFunction` in its main thread, one invocation at a time. Results and exceptions go back to the
client, which writes and reports them as it does for every handler; stack traces begin in the user's code.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from serverfull.contracts.validation import EventInvalid, event_decoder
from serverfull.lambda_mode.emf import EmfMetrics
from serverfull.observability.handles import CURRENT
from serverfull.observability.logger import InvocationLogger
from serverfull.runtimes.handlers import bind
from serverfull.runtimes.marshal import MarshalFault

if TYPE_CHECKING:
    from types import TracebackType

    from serverfull.domain.functions import Function, LogFormat

_CLIENTS_FAULT = "awslambdaric.lambda_runtime_exception"


@dataclass
class NativeHandles:
    """What ``serverfull.logger()`` and ``serverfull.metrics()`` give during one invocation."""

    request_id: str
    function: str
    log_format: LogFormat
    metrics: EmfMetrics

    @cached_property
    def logger(self) -> InvocationLogger:
        """The logger of the invocation; its lines go to standard output, which is the Lambda's log."""
        return InvocationLogger(write_to_log, self.request_id, self.function, self.log_format)


class NativeFunction:
    """A handler for AWS's runtime client that runs one function as the host does: typed, ``async``, with handles.

    :param function: what is run. Its timeout, memory and concurrency are those of the Lambda's configuration, not its
        own.
    :param name: what it is called in its log lines and metrics.
    :param metrics: takes the figures of all invocations.
    :param log_format: shape of the lines of ``serverfull.logger()``.
    :raises TypeError: the handler cannot be called with an event and a context; the message says why.
    """

    def __init__(self, function: Function, name: str, metrics: EmfMetrics, log_format: LogFormat) -> None:
        self._bound = bind(function)
        self._name = name
        self._metrics = metrics
        self._log_format = log_format
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, event: Any, context: Any) -> Any:
        """Run one invocation."""
        bound = self._bound
        request_id = str(context.aws_request_id)
        token = CURRENT.set(NativeHandles(request_id, self._name, self._log_format, self._metrics))
        self._metrics.request_id = request_id
        try:
            if bound.decode is not None:
                event = bound.decode(event)
            value = bound.call(event, context)
            if bound.is_async:
                value = self._environments_loop().run_until_complete(value)
            return value if bound.encode is None else bound.encode(value)
        except (EventInvalid, MarshalFault) as refused:
            raise _fault(refused.error_type, refused.message) from None
        except Exception as error:
            error.__traceback__ = _users_frames(error.__traceback__)
            raise  # which adds no frame, unlike naming the exception
        finally:
            CURRENT.reset(token)
            self._metrics.flush()

    def close(self) -> None:
        """Close the event loop, if there is one, when no more invocations come."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _environments_loop(self) -> asyncio.AbstractEventLoop:
        """Give the event loop that lives as long as the execution environment.

        So clients and connections that a handler keeps between invocations stay usable, as they do in the host. It is
        made by the first invocation, because the client may fork before.
        """
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop


def write_to_log(text: str) -> None:
    """Write to the Lambda's log: the standard output of the moment, because the client puts its own in place."""
    sys.stdout.write(text)


def _fault(error_type: str, message: str) -> Exception:
    """Make an exception that the client reports under a name, without a stack trace."""
    client: Any = sys.modules.get(_CLIENTS_FAULT)
    fault: Exception = (
        client.FaultException(error_type, message) if client else type(error_type, (Exception,), {})(message)
    )
    return fault


def _folder(function: Callable[..., object]) -> str:
    # What tracebacks call the file; in a frozen program that is not `__file__`.
    return os.path.dirname(function.__code__.co_filename) + "/"  # noqa: PTH120 - text, compared with text


_NOT_THE_USERS = (_folder(_folder), _folder(bind), _folder(event_decoder), _folder(asyncio.run))


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames before the user's first one: ours and those of the event loop."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        trace = trace.tb_next
    return trace
