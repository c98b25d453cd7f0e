"""The one way to run a function: resolve its name, admit the call, run it, log it, count it.

Called by the API and by the event queue, on the loop. What it knows of a function (a `Unit`: identity, environment,
metrics) is kept for as long as the fetcher gives the same object for the name; a new object is a new unit. Functions of
several versions, accounts or regions are several objects.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.invocations import Invocation, Outcome
from serverfull.domain.lineage import MOST_TIMES, extended, mark_of, new_trace, times
from serverfull.domain.names import LATEST, function_not_found, new_log_stream
from serverfull.domain.records import Partition
from serverfull.errors import (
    FunctionNotReady,
    InternalFailure,
    NotFoundError,
    RecursiveInvocation,
    RequestError,
    TooManyRequests,
)
from serverfull.interfaces import FunctionIdentity
from serverfull.invocation.admission import PoolAdmission
from serverfull.invocation.logs import InvocationLog, MemoryFigure
from serverfull.runtimes.marshal import decode_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.config import Settings
    from serverfull.domain.changes import FunctionChanged
    from serverfull.domain.events import Attempt, EventEnd, QueuedEvent
    from serverfull.domain.functions import Function
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.interfaces import Admission, Clock, Environment, EventQueue, Fetcher, LogSink, Runtime
    from serverfull.observability.metrics import FunctionMetrics, Metrics

UnitKey: TypeAlias = "str | tuple[str, ...]"
"""A name; with the version where that is not ``$LATEST``; with account and region too, for deployed functions."""

_MOST_VIEWS = 1_000
"""Accounts and regions whose view of the fetcher is kept."""


class Unit:
    """What the invoker keeps of a function between calls."""

    __slots__ = (
        "admission",
        "deployed",
        "environment",
        "function",
        "identity",
        "limit",
        "logged",
        "mark",
        "metrics",
        "permit",
    )

    def __init__(
        self,
        identity: FunctionIdentity,
        environment: Environment,
        metrics: FunctionMetrics,
        admission: Admission,
        permit: str,
    ) -> None:
        self.function = identity.function
        self.identity = identity
        self.deployed = isinstance(identity.function.handler, DeployedHandler)
        self.logged = _without_code(identity)
        self.environment = environment
        self.metrics = metrics
        self.limit = identity.function.max_concurrency
        self.admission = admission
        self.mark = mark_of(permit)
        self.permit = permit  # what its permits are counted under: all versions of a function together


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
        self._views: dict[tuple[str, str], Fetcher] = {}
        self._pools: dict[Partition, PoolAdmission] = {}
        self.use_fetcher(fetcher)
        self._runtime = runtime
        self._admission = admission
        self._sink = sink
        self._metrics = metrics
        self._defaults = settings.functions
        self._log_budget = settings.limits.log_bytes
        self._logger = logger
        self._memory = MemoryFigure()
        self._units: dict[UnitKey, Unit] = {}
        self._queue: EventQueue
        self._clock: Clock
        self._freed: Callable[[str], None]

    def use_fetcher(
        self,
        fetcher: Fetcher,
        unreserved: Callable[[Partition], int] | None = None,
        set_aside: Callable[[Partition, str], int] | None = None,
    ) -> None:
        """Resolve names by this fetcher from now on.

        :param unreserved: says how many calls of an account's deployed functions may run at once in a region, beside
            those that functions have set aside; None: any number.
        :param set_aside: says how many of these are a function's own; None: none.
        """
        self._fetcher = fetcher
        self._unreserved = unreserved or (lambda _partition: sys.maxsize)
        self._set_aside = set_aside or (lambda _partition, _name: 0)
        self._partitioned = fetcher.at(Partition("0" * 12, "us-east-1")) is not fetcher
        self._views.clear()

    def use_queue(self, queue: EventQueue, clock: Clock) -> None:
        """Take the queue that holds Event invocations, and its clock."""
        self._queue = queue
        self._clock = clock
        self._freed = queue.freed

    def decorate_runtime(self, around: Callable[[Runtime], Runtime]) -> None:
        """Put a decorator around what runs functions, before the first call."""
        self._runtime = around(self._runtime)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Run a function and wait for how it ends.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidRequestContent: the payload is not JSON.
        :raises RecursiveInvocation: the function calls itself in circles.
        :raises TooManyRequests: a concurrency limit is reached.
        :raises FunctionNotReady: the function is Failed.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
        """
        unit = await self._resolve(invocation)
        environment, metrics, limit = unit.environment, unit.metrics, unit.limit
        failure = environment.failure
        if failure is not None:
            raise FunctionNotReady(invocation.name, "Failed", failure)
        trace = invocation.trace_id
        chained = _chained(unit, trace)
        try:
            unit.admission.take(unit.permit, limit)
        except TooManyRequests as refusal:
            metrics.throttled(refusal.reason)
            raise
        metrics.started()
        if invocation.admitted is not None:
            invocation.admitted()
        log = InvocationLog(unit.logged, invocation.request_id, self._sink, self._log_budget, tail=invocation.tail)
        invocation.trace_id = chained
        began = time.perf_counter()
        try:
            outcome = await environment.run(invocation, log)
        except BaseException as failure:
            metrics.discarded()  # the handler did not run, or the host is going down
            if isinstance(failure, TooManyRequests):  # by the environments: nothing is free now that was not before
                raise
            self._freed(invocation.name)
            raise
        finally:
            invocation.trace_id = trace
            unit.admission.release(unit.permit, limit)
        self._freed(invocation.name)
        ended = time.perf_counter()
        init, memory_mb, duration = outcome.init_seconds, outcome.memory_mb, ended - began
        if init is not None:
            duration = max(0.0, duration - init)
        if memory_mb is None:
            memory_mb = self._memory.mb(ended)
        metrics.finished(duration, outcome.function_error is not None)
        if outcome.status == "timeout":
            metrics.timed_out()
        outcome.executed_version = unit.identity.version
        outcome.log_tail = log.finish(duration, outcome.status, invocation.trace_id, memory_mb, init, outcome.ended_by)
        if log.dropped:
            metrics.log_bytes_dropped(log.dropped)
        return outcome

    async def accept_event(self, invocation: Invocation) -> None:
        """Take an Event invocation into the queue.

        :raises NotFoundError: there is no such function or version.
        :raises InvalidRequestContent: the payload is not JSON.
        :raises TooManyRequests: the backlog is full.
        :raises InternalFailure: the event cannot be kept.
        """
        unit = await self._resolve(invocation)
        decode_event(invocation.payload)
        from serverfull.invocation.events import event_of

        if await self._queue.put(event_of(invocation, _generation(unit.function), self._clock.now())):
            unit.metrics.async_received()

    async def accept_record(self, invocation: Invocation) -> None:
        """Take a record of another event into the queue, as the event of a function that is its destination.

        :raises RecursiveInvocation: the function would not be run, as the chain has come by it too often.
        :raises RequestError: as `accept_event`.
        """
        _chained(await self._resolve(invocation), invocation.trace_id)
        await self.accept_event(invocation)

    async def check(self, invocation: Invocation) -> None:
        """Do what DryRun does: everything up to running the function.

        :raises NotFoundError: there is no such function or version.
        """
        await self._resolve(invocation)

    async def run_event(self, event: QueuedEvent, admitted: Callable[[], None]) -> Attempt:
        """Run an event that the queue held, once; nobody waits for the result.

        :param admitted: called when no limit can refuse it any more.
        """
        from serverfull.invocation.events import attempt_of, invocation_of, refused

        metrics = self._metrics.function(event.name)

        def begun() -> None:
            metrics.async_event_age(event.age(self._clock.now()))
            admitted()

        invocation = invocation_of(event, begun)
        limit: int | None = None
        try:
            function = (await self._resolve(invocation)).function
            if _generation(function) != event.generation:
                raise function_not_found(event.name, event.account, event.region, event.qualifier)
            limit = function.max_concurrency
            return attempt_of(await self.invoke(invocation))
        except RequestError as refusal:
            return refused(refusal, limit)
        except Exception:  # the boundary of an attempt
            self._logger.exception("event failed", function=event.name, request_id=event.request_id)
            return refused(InternalFailure())

    def event_ended(self, event: QueuedEvent, end: EventEnd, kept: bool) -> None:
        """Count an event that has ended, and say so where that was no success.

        :param kept: whether the operator finds it among those that ended with nobody to tell.
        """
        if end.success:
            return
        self._metrics.function(event.name).async_dropped()
        reason = end.response.message if end.response is not None else ""
        self._logger.error(
            "event dropped",
            function=event.name,
            request_id=event.request_id,
            condition=end.condition,
            reason=reason or "the function failed",
            kept=kept,
        )

    def failure_of(self, name: str) -> str | None:
        """Say why a function is Failed; None where it is not, or has not been invoked."""
        unit = self._units.get(name)
        return None if unit is None else unit.environment.failure

    def failed_functions(self) -> dict[str, str]:
        """Give every function that is Failed, with why; readable from any thread."""
        found = {unit.permit: unit.environment.failure for unit in dict(self._units).values()}
        return {name: failure for name, failure in found.items() if failure is not None}

    async def unfit(self, name: str, function: Function) -> Unfit | None:
        """Say why a deployed function cannot run here as it is; None: it can."""
        return await self._runtime.unfit(self._identify(name, function))

    def provision(self, name: str, function: Function, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many environments of a deployed function ready before they are needed.

        :param changed: called with how far that is, now and whenever it changes.
        """
        try:
            self._runtime.provision(self._identify(name, function), count, changed)
        except TypeError as unfit:
            from serverfull.domain.readiness import Readiness

            changed(Readiness(count, 0, str(unfit)))

    async def warm(self, partition: Partition, name: str, function: Function) -> None:
        """Begin with what the next call of a deployed function would have to wait for.

        :raises RequestError: that cannot be done.
        """
        try:
            environment = self._runtime.environment(replace(self._identify(name, function), partition=partition))
        except TypeError:  # nothing here runs it, which a call is told
            return
        await environment.warm()

    async def snapshot(self, partition: Partition, name: str, function: Function) -> Fitness:
        """Load the code of a version with SnapStart, so that its environments can be made of that."""
        try:
            return await self._runtime.snapshot(replace(self._identify(name, function), partition=partition))
        except TypeError as unfit:
            from serverfull.domain.readiness import Fitness, Unfit

            return Fitness(Unfit(str(unfit), "InvalidConfiguration"))

    def log_of(self, identity: FunctionIdentity) -> InvocationLog:
        """Give what takes the log of a function while there is no invocation."""
        return InvocationLog(_without_code(identity), "", self._sink, self._log_budget, tail=False)

    def prepare(self, functions: Mapping[str, Function]) -> None:
        """Make at once what else is made at a function's first call, so that its failures elsewhere are shown here too.

        Called by a host that shares its limits with other processes, when its runtime has started.
        """
        for name, function in functions.items():
            self._units[name] = self._make_unit(name, function, None)

    def forget(self, change: FunctionChanged) -> None:
        """Let go of a function that has changed; what runs goes on, and the next call finds it as it is then."""
        of_function = (change.partition.account, change.partition.region, change.name)
        for key in [key for key in self._units if key[:3] == of_function]:
            del self._units[key]

    def forget_name(self, name: str) -> None:
        """Let go of the operator's function of that name, wherever it was called from; as `forget`."""
        for key in [key for key, unit in self._units.items() if unit.identity.name == name]:
            del self._units[key]

    async def _resolve(self, invocation: Invocation) -> Unit:
        name = invocation.name
        fetcher = self._fetcher
        if self._partitioned:
            fetcher = self._views.get((invocation.account, invocation.region)) or self._view(invocation)
        try:
            function = await fetcher.fetch(name, invocation.qualifier)
        except NotFoundError:
            raise function_not_found(name, invocation.account, invocation.region, invocation.qualifier) from None
        unit = self._units.get(name)
        return unit if unit is not None and unit.function is function else self._unit(invocation, function)

    def _view(self, invocation: Invocation) -> Fetcher:
        if len(self._views) >= _MOST_VIEWS:  # callers choose accounts freely while nobody authenticates them
            self._views.clear()
        partition = Partition(invocation.account, invocation.region)
        view = self._views[partition.account, partition.region] = self._fetcher.at(partition)
        return view

    def _unit(self, invocation: Invocation, function: Function) -> Unit:
        """Give the unit of a function, a new one where the function is not the one that was there before."""
        name = invocation.name
        key: UnitKey = name
        deployed = isinstance(function.handler, DeployedHandler)
        if deployed:
            key = (invocation.account, invocation.region, name, function.version)
        elif function.version != LATEST:
            key = (name, function.version)
        unit = self._units.get(key)
        if unit is None or unit.function is not function:
            partition = Partition(invocation.account, invocation.region) if deployed else None
            unit = self._units[key] = self._make_unit(name, function, partition)
        return unit

    def _pool(self, partition: Partition) -> Admission:
        pool = self._pools.get(partition)
        if pool is None:
            pool = self._pools[partition] = PoolAdmission(
                self._admission,
                partial(self._unreserved, partition),
                lambda permit: self._set_aside(partition, permit.rpartition("/")[2]),
            )
        return pool

    def _make_unit(self, name: str, function: Function, partition: Partition | None) -> Unit:
        permit, admission = name, self._admission
        if partition is not None:
            permit = f"{partition.account}/{partition.region}/{name}"
            admission = self._pool(partition)
        identity = replace(self._identify(name, function), partition=partition)
        try:
            environment = self._runtime.environment(identity)
        except TypeError as unfit:
            raise FunctionNotReady(name, "Failed", str(unfit)) from None
        metrics = self._metrics.function(name)
        metrics.reserved(function.max_concurrency is not None)
        return Unit(identity, environment, metrics, admission, permit)

    def _identify(self, name: str, function: Function) -> FunctionIdentity:
        return identify(name, function, self._defaults.timeout, self._defaults.memory_size)


def _generation(function: Function) -> str:
    handler = function.handler
    return handler.generation if isinstance(handler, DeployedHandler) else ""


def _chained(unit: Unit, trace: str | None) -> str | None:
    """Give the tracing header with which a function is called, having looked for a circle.

    :raises RecursiveInvocation: there is one.
    """
    if trace is None:  # in process a trace is made where a handler asks for it, and the next call is the first counted
        return extended(new_trace(), unit.mark) if unit.deployed else None
    before = times(trace, unit.mark)
    if before >= MOST_TIMES and unit.function.recursive_loop == "Terminate":
        unit.metrics.recursion_stopped()
        raise RecursiveInvocation(unit.identity.name, before)
    return extended(trace, unit.mark)


def _without_code(identity: FunctionIdentity) -> FunctionIdentity:
    """Give what the log needs of a deployed function.

    An idle environment keeps its last log, for what it writes late; were the code in it, none would end with the code.
    """
    if not isinstance(identity.function.handler, DeployedHandler):
        return identity
    return replace(identity, function=replace(identity.function, handler=None))


def identify(name: str, function: Function, timeout: float, memory_size: int) -> FunctionIdentity:
    """Fill in what a function leaves to the host.

    :param timeout: seconds, for a function that has none.
    :param memory_size: MB, for a function that has none.
    """
    levels = function.log_format == "JSON"
    return FunctionIdentity(
        name=name,
        version=function.version,
        function=function,
        timeout=function.timeout or timeout,
        memory_size=function.memory_size or memory_size,
        log_format=function.log_format,
        log_group=function.log_group or f"/aws/lambda/{name}",
        log_stream=new_log_stream(function.version),
        application_log_level=(function.application_log_level or "INFO") if levels else None,
        system_log_level=(function.system_log_level or "INFO") if levels else None,
    )
