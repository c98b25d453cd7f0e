"""The invocation that the running code belongs to, as one object in one context variable.

`observability.handles.CURRENT` holds an `Activity` while a handler runs. Everything in process that must know "whose
call is this" reads it: the standard streams, ``os.environ``, the logging handler, ``serverfull.logger()``. Tasks
inherit it with their context; threads do through `serverfull.runtimes.capture`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from serverfull.domain.lineage import new_trace
from serverfull.observability.handles import CURRENT

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.observability.handles import Handles

_AS_EVER: Mapping[str, Any] = MappingProxyType({})


class Activity:
    """One invocation in progress, as the code that runs for it sees the process.

    :param log: takes what the code prints and logs.
    :param variables: the function's environment variables; shared by the function's invocations, as in a warm AWS
        environment. None as a value hides a variable of the host.
    :param trace_id: the tracing header that the caller sent, if any; see `trace`.
    :param metrics: what ``serverfull.metrics()`` gives.
    :ivar streams: what the code has assigned to ``sys.stdout`` and ``sys.stderr``, by their names.
    :param region: the region that the caller addressed: what ``AWS_REGION`` shows and the context's ARN has.
    """

    __slots__ = (
        "_logger",
        "identity",
        "log",
        "metrics",
        "region",
        "request_id",
        "streams",
        "tenant_id",
        "trace_id",
        "variables",
    )

    def __init__(
        self,
        identity: FunctionIdentity,
        request_id: str,
        log: InvocationLog,
        variables: MutableMapping[str, str | None],
        trace_id: str | None,
        tenant_id: str | None,
        metrics: Any,
        region: str,
    ) -> None:
        self.identity = identity
        self.request_id = request_id
        self.log = log
        self.variables = variables
        self.trace_id = trace_id
        self.tenant_id = tenant_id
        self.metrics = metrics
        self.region = region
        self.streams: Mapping[str, Any] = _AS_EVER
        self._logger: Any = None

    def trace(self) -> str:
        """Give what ``_X_AMZN_TRACE_ID`` shows: the caller's tracing header, else a new trace that is not sampled.

        AWS: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
        """
        if self.trace_id is None:
            self.trace_id = new_trace()
        return self.trace_id

    @property
    def logger(self) -> Any:
        """The structured logger of this invocation, made when it is first asked for."""
        if self._logger is None:
            from serverfull.observability.logger import InvocationLogger

            self._logger = InvocationLogger(
                self.log.write, self.request_id, self.identity.name, self.identity.log_format
            )
        return self._logger


def current() -> Activity | None:
    """Give the activity that the calling code belongs to; None outside of any invocation."""
    handles: Handles | None = CURRENT.get()
    return handles if isinstance(handles, Activity) else None
