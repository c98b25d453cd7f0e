"""One execution environment: when its instance starts, what that is given, how its ends are answered.

A `LaunchedSandbox` starts with its first invocation. From then on it runs one at a time until it is closed, its
instance ends, or an invocation takes longer than it may; it is of no use after that, and all that it has started is
killed.

Everything here runs on the host's loop.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from serverfull.domain.invocations import Outcome
from serverfull.domain.json_functions import dumps
from serverfull.domain.lineage import new_trace
from serverfull.domain.names import function_arn, new_log_stream
from serverfull.errors import InvocationNotBegun
from serverfull.interfaces import Sandbox
from serverfull.runtimes import failures
from serverfull.runtimes.error_reports import platform_error_document
from serverfull.runtimes.runtime_api.api import Work
from serverfull.runtimes.runtime_api.extensions import ExtensionFailed
from serverfull.runtimes.sandboxes.endings import answered, error_type_of, error_type_of_end, exited, unstartable
from serverfull.runtimes.sandboxes.extended import Extended
from serverfull.runtimes.sandboxes.launching import Gone, Unstartable
from serverfull.runtimes.sandboxes.loading import Loading

if TYPE_CHECKING:
    from serverfull.domain.invocations import Invocation
    from serverfull.interfaces import FunctionIdentity, InvocationLog
    from serverfull.runtimes.deadlines import Deadlines
    from serverfull.runtimes.runtime_api.extensions import FunctionFacts
    from serverfull.runtimes.sandboxes.launching import Instance, Launcher

_arn = lru_cache(maxsize=4096)(function_arn)

PROVISIONED = "provisioned-concurrency"
"""How a sandbox is initialised that is started before it is needed; what `AWS_LAMBDA_INITIALIZATION_TYPE` says."""

PROVISIONED_INIT_TIMEOUT = 130.0
"""Seconds that code may take to load then, or the function's timeout where that is longer.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
"""

EARLY_LOG = 65_536
"""Characters that are kept of what code writes before there is an invocation."""

INIT_TIMEOUT = 10.0
"""Seconds that code may take to load before the first invocation's own time begins."""

MEMORY_EVERY = 0.5
"""Seconds for which the figure of the most memory used is kept where calls are short: asking for it takes 100 µs."""

SHORT = 0.1
"""Seconds: a call that took longer is always measured. On a busy machine short ones take some time too, and measuring
each of them would make it busier."""


class Overdue(Exception):
    """The invocation has had its time."""


class LaunchedSandbox(Sandbox):
    """An instance with the code of one function.

    :param launcher: starts it.
    :param deadlines: of all invocations that run in sandboxes.
    :param facts: what its extensions are told.
    :param initialization: what its code is told of how it is started.
    """

    def __init__(
        self,
        identity: FunctionIdentity,
        launcher: Launcher,
        deadlines: Deadlines,
        facts: FunctionFacts,
        initialization: str = "on-demand",
    ) -> None:
        self._identity = identity
        self._launcher = launcher
        self._deadlines = deadlines
        self._facts = facts
        self._initialization = initialization
        self._log_stream = new_log_stream(identity.version)
        self._early = ""
        self._log: InvocationLog | None = None
        self._running: Instance | None = None
        self._extended: Extended | None = None
        self._end_reason = "spindown"
        self._ready = False
        self._closed = False
        self._init_seconds: float | None = None
        self._loading = Loading(identity, initialization)
        self._memory = (0, 0.0)
        self.uses = 0
        self.frozen = False
        self.init_failure: Callable[[str], Outcome] | None = None

    @property
    def usable(self) -> bool:
        """Whether another invocation can be given to it."""
        running = self._running
        return self._ready and running is not None and running.alive

    @property
    def memory_mb(self) -> int:
        """The most memory that it has used so far."""
        return self._memory[0]

    async def start(self) -> Outcome | None:
        """Load the code before there is an invocation; gives how that failed, if it did."""
        patience = max(PROVISIONED_INIT_TIMEOUT, self._identity.timeout)
        failed = await self._begin("", time.monotonic() + patience)
        if failed is None and not self._ready:
            said = f"The code did not load within {patience:g} seconds"
            failed = Outcome(platform_error_document("Sandbox.Timedout", said), failures.UNHANDLED, status="timeout")
        return failed

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called when the instance has ended."""
        if self._running is not None:
            self._running.when_ended(call)

    def run(self, invocation: Invocation, log: InvocationLog) -> Coroutine[Any, Any, Outcome]:
        """Run one invocation; the first one loads the code before, which may take 10 seconds more."""
        log.log_stream = self._log_stream
        self._log = log
        if self._loading.untold:
            self._loading.tell(log, self._early)
            self._early = ""
        self.uses += 1
        if self._ready:
            now = time.monotonic()
            return self._run(invocation, log, now, now + self._identity.timeout)
        return self._run_first(invocation, log)

    async def _run_first(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        request_id, timeout = invocation.request_id, self._identity.timeout
        began = time.monotonic()
        try:
            failed = await self._begin(request_id, began + INIT_TIMEOUT)
            if failed is not None:
                return failed
            now = time.monotonic()
            self._init_seconds = now - began
            deadline = now + timeout
            if not self._ready:  # loading took too long: once more, in the time of the invocation
                deadline = began + INIT_TIMEOUT + timeout
                failed = await self._begin(request_id, deadline)
                if failed is None and not self._ready:
                    failed = self._overdue(invocation)
                if failed is not None:
                    return self._timed(failed)
        except BaseException:
            self._kill()
            raise
        return await self._run(invocation, log, time.monotonic(), deadline)

    def freeze(self) -> None:
        """Stop what the function has left running until the next invocation, as AWS does."""
        if self._running is not None and not self.frozen:
            self.frozen = self._running.freeze()
            if self._extended is not None:
                self._extended.telemetry.pause()

    async def aclose(self) -> None:
        """End the instance and what it has started, and give back what they held. Closing twice is fine."""
        self._closed, self._ready = True, False
        await self._abandon(self._end_reason)

    async def _abandon(self, reason: str = "") -> None:
        """End what is running.

        :param reason: what its extensions are told, which have time to end then; empty: it is killed at once.
        """
        extended, self._extended = self._extended, None
        if extended is not None:
            await extended.end(reason)
        running, self._running = self._running, None
        if running is not None:
            await running.aclose()

    async def _begin(self, request_id: str, until: float) -> Outcome | None:
        """Start an instance and wait until it asks for an invocation; not `_ready` where it does not in time."""
        await self._launcher.prepare()
        began = time.monotonic()
        extended = self._extended = Extended(self._identity, self._facts, until, self)
        self._loading.begin(self._log, extended.telemetry)
        try:
            running = await self._launcher.launch(self._variables(), self._write, extended.extensions)
        except Unstartable as failed:
            return self._unstarted(failed, request_id)
        except ExtensionFailed as failed:
            return self._failed_init(partial(exited, failed), request_id, failed.error_type)
        except TimeoutError:
            self._loaded("timeout")
            return None
        self._running = running
        extended.started(running)
        if self._closed:  # while it was started
            await self.aclose()
            return None
        running.watch()
        try:
            async with asyncio.timeout(max(0.0, until - began)):
                answer = await running.api.initialised()
                if answer is None:
                    await extended.extensions.ready()
        except TimeoutError:
            running.drain()
            self._loaded("timeout")
            self._measured()
            await self._abandon()
            return None
        except (Gone, ExtensionFailed) as gone:
            running.drain()
            return self._failed_init(partial(exited, gone), request_id, error_type_of_end(gone))
        except Unstartable as failed:
            running.drain()
            return self._unstarted(failed, request_id)
        finally:
            running.unwatch()
        running.drain()
        if answer is not None:
            return self._failed_init(lambda _request_id: answered(answer), request_id, error_type_of(answer))
        self._loaded("success")
        if not extended.present:  # nothing of it is needed for any call
            self._extended = None
        self._ready = True
        return None

    def _loaded(self, status: str, error_type: str = "") -> None:
        """Say how loading the code has ended."""
        if self._extended is not None:  # it is closed meanwhile, perhaps
            self._extended.initialised()
        self._loading.end(self._log, status, error_type)

    def _variables(self) -> Mapping[str, str]:
        """Let the code know how it is started, and where its log goes."""
        return {
            "AWS_LAMBDA_INITIALIZATION_TYPE": self._initialization,
            "AWS_LAMBDA_LOG_STREAM_NAME": self._log_stream,
        }

    def _unstarted(self, failed: Unstartable, request_id: str) -> Outcome:
        return self._failed_init(partial(unstartable, str(failed)), request_id, "Runtime.InvalidEntrypoint")

    def _failed_init(self, make: Callable[[str], Outcome], request_id: str, error_type: str) -> Outcome:
        memory_mb = self._measured()
        self._loaded("error", error_type)
        self.end_of_use("failure")

        def failed(request_id: str) -> Outcome:
            outcome = make(request_id)
            outcome.memory_mb = memory_mb
            return outcome

        self.init_failure = failed
        return failed(request_id)

    async def _run(self, invocation: Invocation, log: InvocationLog, began: float, deadline: float) -> Outcome:
        running, extended = self._running, self._extended
        assert running is not None
        try:
            if self.frozen:
                running.thaw()
                self.frozen = False
            self._deadlines.note(self, deadline, running.api.interrupt, Overdue())
            running.watch()
            work = self._work(invocation, deadline - began)
            if extended is not None:
                extended.begin(work)
            answer = await running.api.run(work)
        except Overdue:
            outcome = self._timed(self._overdue(invocation))
            if extended is not None:
                extended.done(outcome, deadline, log)
            return outcome
        except (Gone, ExtensionFailed) as gone:
            running.drain()
            if not running.api.delivered and self.uses > 1:  # it has ended after what it answered last
                self._kill()
                raise InvocationNotBegun from None
            self.end_of_use("failure")
            outcome = exited(gone, invocation.request_id)
        except BaseException:
            self._kill()
            raise
        else:
            running.drain()
            outcome = answered(answer)
        finally:
            self._deadlines.cross_off(self)
            running.unwatch()
        known, until = self._memory
        ended = time.monotonic()
        brief = running.alive and ended - began < SHORT and ended < until
        outcome.memory_mb = known if brief else self._measured()
        outcome.init_seconds, self._init_seconds = self._init_seconds, None
        if extended is not None:
            self.settling = extended.done(outcome, deadline, log)
        return outcome

    def _timed(self, outcome: Outcome) -> Outcome:
        """Have an outcome that ends the sandbox say how long the code took to load before its own time began."""
        outcome.init_seconds = self._init_seconds
        return outcome

    def _overdue(self, invocation: Invocation) -> Outcome:
        memory_mb = self._measured()
        self._kill("timeout")
        if self._running is not None:
            self._running.drain()
        outcome = failures.timed_out(invocation.request_id, self._identity.timeout)
        outcome.memory_mb = memory_mb
        return outcome

    def _kill(self, reason: str = "failure") -> None:
        """Let nothing run in it any more; where there are extensions, closing it gives them their time first."""
        self.end_of_use(reason)
        if self._running is not None and (self._extended is None or not self._extended.present):
            self._running.kill()

    def end_of_use(self, reason: str) -> None:
        """Let nothing run in it any more.

        :param reason: what its extensions are told at its end: ``failure`` or ``timeout``.
        """
        self._ready = False
        if self._end_reason == "spindown":
            self._end_reason = reason

    def _measured(self) -> int:
        """Ask for the most memory used, and remember it."""
        most = self._memory[0]
        if self._running is not None:
            with suppress(OSError, ValueError):
                most = max(most, self._running.most_memory_mb())
        self._memory = most, time.monotonic() + MEMORY_EVERY
        return most

    def _write(self, text: str) -> None:
        """Take what the runtime has written."""
        if self._extended is None:
            self.write(text)
        else:
            self._extended.write("", text)

    def write(self, text: str) -> None:
        """Put something into the log of the call that runs now, or ran last."""
        if self._log is not None:
            self._log.write(text)
        elif len(self._early) < EARLY_LOG:
            self._early += text

    def note(self, tell: Callable[[InvocationLog], object]) -> None:
        """Have that log told something, as soon as there is one."""
        self._loading.note(self._log, tell)

    def _work(self, invocation: Invocation, left: float) -> Work:
        return Work(
            request_id=invocation.request_id,
            payload=invocation.payload or b"{}",
            deadline_ms=int((time.time() + max(0.0, left)) * 1000),
            arn=_arn(invocation.name, invocation.account, invocation.region, invocation.qualifier),
            trace_id=invocation.trace_id or new_trace(),
            client_context=_text(invocation.client_context),
            cognito_identity=_text(invocation.cognito_identity),
            tenant_id=invocation.tenant_id,
        )


def _text(fields: Mapping[str, Any] | None) -> str | None:
    return None if fields is None else dumps(fields)
