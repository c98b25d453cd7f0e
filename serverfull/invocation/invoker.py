"""The one way to run a function: resolve its name, admit the call, run it, log it, count it.

Called by the API and by the event queue, on the loop. What it knows of a function (a `Unit`: identity, environment,
metrics) is kept for as long as the fetcher gives the same object for the name; a new object is a new unit.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from serverfull.domain.invocations import Invocation, Outcome
from serverfull.domain.names import LATEST, function_not_found
from serverfull.errors import FunctionNotReady, NotFoundError, RequestError, TooManyRequests
from serverfull.interfaces import FunctionIdentity
from serverfull.invocation.logs import InvocationLog, MemoryFigure
from serverfull.runtimes.marshal import decode_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.config import Settings
    from serverfull.domain.functions import Function
    from serverfull.interfaces import Admission, Environment, EventQueue, Fetcher, LogSink, Runtime
    from serverfull.observability.metrics import FunctionMetrics, Metrics


class Unit:
    """What the invoker keeps of a function between calls."""

    __slots__ = ("environment", "function", "identity", "limit", "metrics")

    def __init__(self, identity: FunctionIdentity, environment: Environment, metrics: FunctionMetrics) -> None:
        self.function = identity.function
        self.identity = identity
        self.environment = environment
        self.metrics = metrics
        self.limit = identity.function.max_concurrency


class Invoker:
    """Runs functions.

    :param fetcher: resolves names.
    :param runtime: makes environments.
    :param admission: says who may run now.
    :param sink: takes the functions' log.
    """

    def __init__(
        self,
        *,
        fetcher: Fetcher,
        runtime: Runtime,
        admission: Admission,
        sink: LogSink,
        metrics: Metrics,
        settings: Settings,
        logger: Any,
    ) -> None:
        self._fetcher = fetcher
        self._runtime = runtime
        self._admission = admission
        self._sink = sink
        self._metrics = metrics
        self._defaults = settings.functions
        self._log_budget = settings.limits.log_bytes
        self._logger = logger
        self._memory = MemoryFigure()
        self._units: dict[str, Unit] = {}
        self.queue: EventQueue
        self._capacity_freed: Any = None

    def use_queue(self, queue: EventQueue, capacity_freed: Any) -> None:
        """Take the queue that holds Event invocations; ``capacity_freed`` is called when an invocation has ended."""
        self.queue = queue
        self._capacity_freed = capacity_freed

    def decorate_runtime(self, around: Callable[[Runtime], Runtime]) -> None:
        """Put a decorator around what runs functions, before the first call."""
        self._runtime = around(self._runtime)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Run a function and wait for how it ends.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidRequestContent: the payload is not JSON.
        :raises TooManyRequests: a concurrency limit is reached.
        :raises FunctionNotReady: the function is Failed.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
        """
        unit = await self._resolve(invocation)
        environment, metrics, limit = unit.environment, unit.metrics, unit.limit
        failure = environment.failure
        if failure is not None:
            raise FunctionNotReady(invocation.name, "Failed", failure)
        try:
            self._admission.take(invocation.name, limit)
        except TooManyRequests as refusal:
            metrics.throttled(refusal.reason)
            raise
        metrics.started()
        log = InvocationLog(unit.identity, invocation.request_id, self._sink, self._log_budget, tail=invocation.tail)
        began = time.perf_counter()
        try:
            outcome = await environment.run(invocation, log)
        except BaseException:
            metrics.discarded()  # the handler did not run, or the host is going down
            raise
        finally:
            self._admission.release(invocation.name, limit)
            self._capacity_freed()
        ended = time.perf_counter()
        metrics.finished(ended - began, outcome.function_error is not None)
        outcome.executed_version = unit.identity.version
        outcome.log_tail = log.finish(ended - began, outcome.status, invocation.trace_id, self._memory.mb(ended))
        if log.dropped:
            metrics.log_bytes_dropped(log.dropped)
        return outcome

    async def accept_event(self, invocation: Invocation) -> None:
        """Take an Event invocation into the queue.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidRequestContent: the payload is not JSON.
        :raises TooManyRequests: the backlog is full.
        """
        unit = await self._resolve(invocation)
        decode_event(invocation.payload)
        await self.queue.put(invocation)
        unit.metrics.async_received()

    async def check(self, invocation: Invocation) -> None:
        """Do what DryRun does: everything up to running the function.

        :raises NotFoundError: there is no such function or version.
        """
        await self._resolve(invocation)

    async def run_event(self, invocation: Invocation) -> None:
        """Run an event that the queue held; nobody waits for the result.

        :raises TooManyRequests: no limit allows it now.
        """
        try:
            await self.invoke(invocation)
        except TooManyRequests:
            if self._units[invocation.name].limit != 0:
                raise
            self._drop(invocation, "the function's max_concurrency is 0, so it can never run")
        except RequestError as refusal:
            self._drop(invocation, refusal.message)
        except Exception:  # a queue task's boundary: the event cannot be answered any more
            self._metrics.function(invocation.name).async_dropped()
            self._logger.exception("event failed", function=invocation.name, request_id=invocation.request_id)

    def _drop(self, invocation: Invocation, reason: str) -> None:
        self._metrics.function(invocation.name).async_dropped()
        self._logger.error("event dropped", function=invocation.name, request_id=invocation.request_id, reason=reason)

    def failure_of(self, name: str) -> str | None:
        """Say why a function is Failed; None where it is not, or has not been invoked."""
        unit = self._units.get(name)
        return None if unit is None else unit.environment.failure

    def failed_functions(self) -> dict[str, str]:
        """Give every function that is Failed, with why; readable from any thread."""
        found = {name: unit.environment.failure for name, unit in dict(self._units).items()}
        return {name: failure for name, failure in found.items() if failure is not None}

    def prepare(self, functions: Mapping[str, Function]) -> None:
        """Make at once what else is made at a function's first call, so that its failures elsewhere are shown here too.

        Called by a host that shares its limits with other processes, when its runtime has started.
        """
        for name, function in functions.items():
            self._units[name] = self._make_unit(name, function)

    async def _resolve(self, invocation: Invocation) -> Unit:
        try:
            function = await self._fetcher.fetch(invocation.name, invocation.qualifier)
        except NotFoundError:
            raise function_not_found(
                invocation.name, invocation.account, invocation.region, invocation.qualifier
            ) from None
        unit = self._units.get(invocation.name)
        if unit is None or unit.function is not function:
            unit = self._units[invocation.name] = self._make_unit(invocation.name, function)
        return unit

    def _make_unit(self, name: str, function: Function) -> Unit:
        identity = identify(name, function, self._defaults.timeout, self._defaults.memory_size)
        try:
            environment = self._runtime.environment(identity)
        except TypeError as unfit:
            raise FunctionNotReady(name, "Failed", str(unfit)) from None
        return Unit(identity, environment, self._metrics.function(name))


def identify(name: str, function: Function, timeout: float, memory_size: int) -> FunctionIdentity:
    """Fill in what a function leaves to the host.

    :param timeout: seconds, for a function that has none.
    :param memory_size: MB, for a function that has none.
    """
    today = time.strftime("%Y/%m/%d", time.gmtime())
    return FunctionIdentity(
        name=name,
        version=LATEST,
        function=function,
        timeout=function.timeout or timeout,
        memory_size=function.memory_size or memory_size,
        log_format=function.log_format,
        log_group=f"/aws/lambda/{name}",
        log_stream=f"{today}/[{LATEST}]{secrets.token_hex(16)}",
    )
