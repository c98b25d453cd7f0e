"""Runs handlers inside the host's own process: no isolation, no start-up cost, for code that the operator registered.

- ``async def`` handlers are tasks on the host's loop, or on a loop of their own (``Function(loop="own")``).
- ``def`` handlers run on threads of `HandlerThreads`, one invocation a thread at a time.

The deadline is a timer on the host's loop in every case, so the caller is answered on time whatever the handler does.
What cannot be stopped is left behind and counted: a thread (or an own loop) that does not come back is *lost*,
replaced, and after a set number of them the function, not the host, is marked Failed until they end.

Called by the invoker on the host's loop. Handlers see the process through `activity`, `environ` and `capture`.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from serverfull.domain.invocations import Invocation, Outcome
from serverfull.domain.log_levels import log_variables
from serverfull.domain.names import function_arn
from serverfull.errors import InvalidRequestContent
from serverfull.interfaces import Environment, FunctionIdentity, InvocationLog, Runtime
from serverfull.observability.handles import CURRENT
from serverfull.runtimes import failures
from serverfull.runtimes.activity import Activity
from serverfull.runtimes.capture import CapturePatch
from serverfull.runtimes.context import LambdaContext
from serverfull.runtimes.deadlines import Deadlines
from serverfull.runtimes.environ import EnvironPatch, function_variables
from serverfull.runtimes.handlers import BoundHandler, bind
from serverfull.runtimes.loops import Heart, OwnLoop
from serverfull.runtimes.marshal import decode_event, encode_result
from serverfull.runtimes.threads import Completions, HandlerThreads, Job, interrupt
from serverfull.runtimes.watchdog import TASK_PREFIX, UNKNOWN, Stall, Watchdog

if TYPE_CHECKING:
    import threading

    from serverfull.domain.functions import Function
    from serverfull.observability.metrics import Metrics

_arn = lru_cache(maxsize=4096)(function_arn)

INTERRUPT_AGAIN = 0.05
"""Seconds after which a lost thread that could not be interrupted is looked at again."""

_HINT = 'a handler blocks the loop: make it a plain def, or give it Function(..., loop="own")'
_NO_HANDLER = "no handler runs on the loop: the machine, or the process, has too much else to do"

LOOP_GRACE = 0.25
"""Seconds after a timeout within which an own loop must turn once, or it counts as lost."""


class InProcessRuntime(Runtime):
    """Makes in-process environments; owns the threads, the watchdog and the patches that they share.

    Use as an async context manager on the loop that serves.

    :param metrics: where lost threads, timeouts and stalls are counted.
    :param logger: the host's own logger.
    :param user_metrics: what handlers get from ``serverfull.metrics()``.
    :param max_lost_threads: how many threads a function may have stuck before it is Failed.
    :param loop_stall: seconds of silence of a loop that count as a stall.
    :param lost_elsewhere: says how many threads of a function are stuck in other processes that share the limit.
    """

    def __init__(
        self,
        *,
        metrics: Metrics,
        logger: Any,
        user_metrics: Any,
        max_lost_threads: int,
        loop_stall: float,
        lost_elsewhere: Callable[[str], int] | None = None,
    ) -> None:
        self.metrics = metrics
        self.logger = logger
        self.user_metrics = user_metrics
        self.max_lost_threads = max_lost_threads
        self.lost_elsewhere = lost_elsewhere
        self.deadlines = Deadlines()
        self.watchdog = Watchdog(loop_stall, self._on_stall, self._on_stall_seconds, self._on_recovery)
        self.loop: asyncio.AbstractEventLoop
        self.threads: HandlerThreads
        self._heart: Heart
        # Weak: where a fetcher gives a new object for a name, the old environment lives as long as its calls.
        self._environments: weakref.WeakSet[InProcessEnvironment] = weakref.WeakSet()
        self._open = False

    async def __aenter__(self) -> InProcessRuntime:
        self.loop = asyncio.get_running_loop()
        self.threads = HandlerThreads(self.loop)
        self._heart = Heart(self.loop, self._on_beat)
        CapturePatch.install()
        EnvironPatch.install()
        self._open = True
        self._heart.start()
        self.watchdog.watch(self._heart)
        self.watchdog.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._open:
            return
        self._open = False
        self.watchdog.stop()
        self._heart.stop()
        for environment in list(self._environments):
            await environment.aclose()
        self.deadlines.close()
        self.threads.close()
        EnvironPatch.uninstall()
        CapturePatch.uninstall()

    def check(self, function: Function) -> None:
        """Look whether a handler can be called with an event and a context.

        :raises TypeError: it cannot; the message says why.
        """
        bind(function)

    def environment(self, identity: FunctionIdentity, bound: BoundHandler | None = None) -> InProcessEnvironment:
        """Make the environment of a function.

        :param bound: its handler, where that has been looked at already.
        :raises TypeError: its handler cannot be called with an event and a context; the message says why.
        """
        bound = bound or bind(identity.function)
        kind: type[InProcessEnvironment] = ThreadEnvironment
        if bound.is_async:
            kind = OwnLoopEnvironment if identity.function.loop == "own" else HostLoopEnvironment
        made = kind(identity, self, bound)
        self._environments.add(made)
        return made

    @property
    def stall(self) -> Stall | None:
        """The stall of the host's loop that is going on now, if any; readable from any thread."""
        return self.watchdog.stall_of(self._heart)

    def _on_beat(self, late: float) -> None:
        for environment in list(self._environments):
            if environment.lost:
                environment.count_returned()

    def _on_stall(self, stall: Stall) -> None:
        self.metrics.loop_stalled(stall.function)
        self.logger.warning(
            "event loop stalled",
            function=stall.function,
            seconds=round(stall.seconds, 3),
            stack=stall.stack,
            hint=_HINT if stall.function != UNKNOWN else _NO_HANDLER,
        )

    def _on_stall_seconds(self, stall: Stall, seconds: float) -> None:
        self.metrics.loop_stall_seconds(stall.function, seconds)

    def _on_recovery(self, stall: Stall, seconds: float) -> None:
        self.logger.warning("event loop turns again", function=stall.function, seconds=round(seconds, 3))


class InProcessEnvironment(Environment):
    """What the three ways of running a handler share."""

    def __init__(self, identity: FunctionIdentity, runtime: InProcessRuntime, bound: BoundHandler) -> None:
        self.identity = identity
        self.runtime = runtime
        self.metrics = runtime.metrics.function(identity.name)
        self.lost: list[threading.Thread] = []
        self._bound = bound
        self.variables = function_variables(dict(identity.function.environment), _reserved(identity))

    @property
    def failure(self) -> str | None:
        """Why the function is Failed: too many of its threads are stuck."""
        stuck, elsewhere = len(self.lost), self.runtime.lost_elsewhere
        if not stuck and elsewhere is None:
            return None
        if elsewhere is not None:
            stuck += elsewhere(self.identity.name)
        if stuck < self.runtime.max_lost_threads or not stuck:
            return None
        return (
            f"{stuck} of its calls are stuck beyond their timeout and cannot be stopped. "
            "It recovers when they end; fix the handler or restart the host."
        )

    async def aclose(self) -> None:
        """Nothing is held between invocations."""

    def count_returned(self) -> None:
        """Forget lost threads that have ended."""
        ended = [thread for thread in self.lost if not thread.is_alive()]
        for thread in ended:
            self.lost.remove(thread)
            self.metrics.thread_recovered()

    def _lose(self, thread: threading.Thread) -> None:
        self.lost.append(thread)
        self.metrics.thread_lost()
        self.runtime.logger.warning(
            "thread lost to a handler beyond its timeout",
            function=self.identity.name,
            thread=thread.name,
            stuck=len(self.lost),
            limit=self.runtime.max_lost_threads,
        )

    def _activity(self, invocation: Invocation, log: InvocationLog) -> Activity:
        return Activity(
            self.identity,
            invocation.request_id,
            log,
            self.variables,
            invocation.trace_id,
            invocation.tenant_id,
            self.runtime.user_metrics,
            invocation.region,
        )

    def _context(self, invocation: Invocation, deadline: float) -> LambdaContext:
        arn = _arn(invocation.name, invocation.account, invocation.region, invocation.qualifier)
        return LambdaContext(self.identity, invocation, arn, deadline)

    def _timed_out(self, invocation: Invocation) -> Outcome:
        return failures.timed_out(invocation.request_id, self.identity.timeout)

    def _failed(self, exc: BaseException, invocation: Invocation, log: InvocationLog) -> Outcome:
        return failures.describe(exc, invocation.request_id, log, self.identity.log_format)

    def _interrupt(self, thread: threading.Thread, tries: int = 1200) -> None:
        if thread.is_alive() and not interrupt(thread) and tries:
            self.runtime.loop.call_later(INTERRUPT_AGAIN, self._interrupt, thread, tries - 1)


class ThreadEnvironment(InProcessEnvironment):
    """Runs a ``def`` handler on a thread."""

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation on a thread of its own."""
        deadline = time.monotonic() + self.identity.timeout
        waiter: asyncio.Future[Outcome | InvalidRequestContent] = self.runtime.loop.create_future()
        job = Job(lambda: self._execute_handler(invocation, log, deadline), waiter)
        self.runtime.threads.submit(job)
        self.runtime.deadlines.note(waiter, deadline, self._expire, job, invocation)
        try:
            outcome = await waiter
        finally:
            self.runtime.deadlines.cross_off(waiter)
        if outcome.__class__ is not Outcome:
            raise outcome  # type: ignore[misc]
        return outcome

    def _execute_handler(
        self, invocation: Invocation, log: InvocationLog, deadline: float
    ) -> Outcome | InvalidRequestContent:
        bound = self._bound
        try:
            event = decode_event(invocation.payload)
        except InvalidRequestContent as refusal:
            return refusal
        CURRENT.set(self._activity(invocation, log))
        try:
            if bound.decode is not None:
                event = bound.decode(event)
            value = bound.call(event, self._context(invocation, deadline))
            if bound.encode is not None:
                value = bound.encode(value)
            payload, content_type = encode_result(value)
        except BaseException as exc:  # whatever a handler raises is its result
            return self._failed(exc, invocation, log)
        return Outcome(payload, None, content_type)

    def _expire(self, job: Job[Any], invocation: Invocation) -> None:
        if job.waiter.done() or job.finished:  # its result is on the way: the loop had no turn to take it
            return
        thread = self.runtime.threads.abandon(job)
        if thread is not None:
            self._lose(thread)
            self._interrupt(thread)
        job.waiter.set_result(self._timed_out(invocation))


class HostLoopEnvironment(InProcessEnvironment):
    """Runs an ``async def`` handler as a task on the host's loop."""

    def __init__(self, identity: FunctionIdentity, runtime: InProcessRuntime, bound: BoundHandler) -> None:
        super().__init__(identity, runtime, bound)
        self._tasks: set[asyncio.Task[None]] = set()
        self._task_name = TASK_PREFIX + identity.name

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation as a task of its own, so that the answer does not wait for a handler that will not end."""
        loop = self.runtime.loop
        event = decode_event(invocation.payload)
        deadline = time.monotonic() + self.identity.timeout
        waiter: asyncio.Future[Outcome] = loop.create_future()
        task = loop.create_task(self._execute(event, invocation, log, deadline, waiter), name=self._task_name)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        self.runtime.deadlines.note(waiter, deadline, self._expire, task, waiter, invocation)
        try:
            outcome = await waiter
        finally:
            self.runtime.deadlines.cross_off(waiter)
        if task in self._tasks and task.done():
            self._tasks.discard(task)
        else:
            task.add_done_callback(self._tasks.discard)
        return outcome

    async def aclose(self) -> None:
        """Cancel what still runs."""
        for task in list(self._tasks):
            task.cancel()

    async def _execute(
        self,
        event: Any,
        invocation: Invocation,
        log: InvocationLog,
        deadline: float,
        waiter: asyncio.Future[Outcome],
    ) -> None:
        CURRENT.set(self._activity(invocation, log))  # the task has a context of its own
        outcome = await run_coroutine(self, event, invocation, log, deadline)
        if waiter.done():
            return
        if time.monotonic() > deadline:  # it kept the loop, and the timer with it, until now
            outcome = self._timed_out(invocation)
        waiter.set_result(outcome)

    def _expire(self, task: asyncio.Task[None], waiter: asyncio.Future[Outcome], invocation: Invocation) -> None:
        if not waiter.done():
            waiter.set_result(self._timed_out(invocation))
            task.cancel()


class OwnLoopEnvironment(InProcessEnvironment):
    """Runs an ``async def`` handler on a loop in a thread of its own, replaced when a handler blocks it for good."""

    def __init__(self, identity: FunctionIdentity, runtime: InProcessRuntime, bound: BoundHandler) -> None:
        super().__init__(identity, runtime, bound)
        self._own: OwnLoop | None = None
        self._completions = Completions(runtime.loop)
        self._task_name = TASK_PREFIX + identity.name

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation as a task on the own loop."""
        event = decode_event(invocation.payload)
        deadline = time.monotonic() + self.identity.timeout
        own = self._loop()
        job: Job[Outcome] = Job(_nothing, self.runtime.loop.create_future())
        context = contextvars.copy_context()
        context.run(CURRENT.set, self._activity(invocation, log))
        started = own.spawn(self._execute(event, invocation, log, deadline, job), context, self._task_name)
        self.runtime.deadlines.note(job.waiter, deadline, self._expire, own, started, job, invocation)
        try:
            return await job.waiter
        finally:
            self.runtime.deadlines.cross_off(job.waiter)

    async def aclose(self) -> None:
        """Stop the loop."""
        if self._own is not None:
            self._retire(self._own)

    def _loop(self) -> OwnLoop:
        if self._own is None or self._own.ended:
            self._own = OwnLoop(f"serverfull-loop-{self.identity.name}")
            self.runtime.watchdog.watch(self._own.heart)
            weakref.finalize(self, _end_loop, self._own, self.runtime.watchdog).atexit = False
        return self._own

    def _retire(self, own: OwnLoop) -> None:
        _end_loop(own, self.runtime.watchdog)
        if self._own is own:
            self._own = None

    async def _execute(
        self, event: Any, invocation: Invocation, log: InvocationLog, deadline: float, job: Job[Outcome]
    ) -> None:
        job.result = await run_coroutine(self, event, invocation, log, deadline)
        self._completions.add(job)
        job.finished = True

    def _expire(self, own: OwnLoop, started: list[Any], job: Job[Outcome], invocation: Invocation) -> None:
        if job.waiter.done() or job.finished:
            return
        job.waiter.set_result(self._timed_out(invocation))
        turned: list[bool] = []

        def cancel() -> None:
            turned.append(True)
            for task in started:
                task.cancel()

        try:
            own.loop.call_soon_threadsafe(cancel)
        except RuntimeError:  # the loop has just ended
            return
        self.runtime.loop.call_later(LOOP_GRACE, self._replace_if_stuck, own, turned)

    def _replace_if_stuck(self, own: OwnLoop, turned: list[bool]) -> None:
        if turned or own is not self._own:
            return
        self._retire(own)
        self._lose(own.thread)
        self._interrupt(own.thread)


async def run_coroutine(
    environment: InProcessEnvironment, event: Any, invocation: Invocation, log: InvocationLog, deadline: float
) -> Outcome:
    """Run an ``async def`` handler to its outcome; whatever it raises is one. Called inside the invocation's task."""
    bound = environment._bound
    try:
        if bound.decode is not None:
            event = bound.decode(event)
        value = await bound.call(event, environment._context(invocation, deadline))
        if bound.encode is not None:
            value = bound.encode(value)
        payload, content_type = encode_result(value)
    except BaseException as exc:  # whatever a handler raises is its result
        return environment._failed(exc, invocation, log)
    return Outcome(payload, None, content_type)


def _end_loop(own: OwnLoop, watchdog: Watchdog) -> None:
    watchdog.forget(own.heart)
    own.close()


def _nothing() -> Any:
    """Stand where a job has no work for a thread."""


def _reserved(identity: FunctionIdentity) -> dict[str, str]:
    return {
        "AWS_LAMBDA_FUNCTION_NAME": identity.name,
        "AWS_LAMBDA_FUNCTION_VERSION": identity.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(identity.memory_size),
        "AWS_LAMBDA_LOG_GROUP_NAME": identity.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": identity.log_stream,
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        **log_variables(identity.log_format, identity.application_log_level),
        "_HANDLER": identity.function.handler_name,
    }
