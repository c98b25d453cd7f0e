"""Writes down calls that reach functions: a decorator of the runtime. `serverfull.testing.hosts` puts it in place.

It stands where handlers run, so that it sees mock mode and events as well, and not what was refused before: unknown
functions, throttled calls, payloads that are no JSON.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serverfull.interfaces import Environment, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serverfull.domain.functions import Function
    from serverfull.domain.invocations import Invocation, InvocationType, Outcome
    from serverfull.domain.readiness import Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity, InvocationLog


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended.

    :param function: the function's name.
    :param event: decoded from JSON; ``{}`` where the payload was empty.
    :param invocation_type: ``RequestResponse`` or ``Event``.
    :param result: decoded from JSON, or bytes where the handler gave bytes; None where there is an error.
    :param error: the error document (``errorType``, ``errorMessage`` …), or None.
    :param request_id: as the caller and the context see it.
    """

    function: str
    event: Any
    invocation_type: InvocationType
    result: Any
    error: Mapping[str, Any] | None
    request_id: str


class CallRecorder:
    """Keeps calls in the order in which they ended. Usable from any thread."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._changed = threading.Condition()

    def add(self, call: Call) -> None:
        """Keep a call."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def calls(self) -> Sequence[Call]:
        """Give the calls so far."""
        with self._changed:
            return tuple(self._calls)

    def wait(self, count: int, timeout: float) -> Sequence[Call]:
        """Wait until there are as many calls, and give all of them.

        :param timeout: seconds.
        :raises AssertionError: there are fewer; the message holds them.
        """
        until = time.monotonic() + timeout
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._calls) >= count, until - time.monotonic()):
                raise AssertionError(f"{count} calls did not end within {timeout:g} s; there were {self._calls}")
            return tuple(self._calls)


class RecordingRuntime(Runtime):
    """Makes the environments of another runtime, and writes down the calls in them.

    :param runtime: does the work.
    :param recorder: takes the calls.
    """

    def __init__(self, runtime: Runtime, recorder: CallRecorder) -> None:
        self._runtime = runtime
        self._recorder = recorder

    def check(self, function: Function) -> None:
        """Ask the wrapped runtime."""
        self._runtime.check(function)

    def environment(self, identity: FunctionIdentity) -> RecordingEnvironment:
        """Wrap the environment that the wrapped runtime makes."""
        return RecordingEnvironment(self._runtime.environment(identity), self._recorder)

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Ask the wrapped runtime."""
        return await self._runtime.unfit(identity)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Have the wrapped runtime keep environments ready; their calls are written down as all others."""
        self._runtime.provision(identity, count, changed)


class RecordingEnvironment(Environment):
    """Runs the invocations of one function in another environment, and writes them down."""

    def __init__(self, environment: Environment, recorder: CallRecorder) -> None:
        self._environment = environment
        self._recorder = recorder

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation; it is written down before its caller gets the answer."""
        outcome = await self._environment.run(invocation, log)
        self._recorder.add(_call(invocation, outcome))
        return outcome

    @property
    def failure(self) -> str | None:
        """Ask the wrapped environment."""
        return self._environment.failure

    async def warm(self) -> None:
        """Have the wrapped environment do it."""
        await self._environment.warm()

    async def aclose(self) -> None:
        """Close the wrapped environment."""
        await self._environment.aclose()


def _call(invocation: Invocation, outcome: Outcome) -> Call:
    answer: Any = json.loads(outcome.payload) if outcome.content_type == "application/json" else outcome.payload
    failed = outcome.function_error is not None
    return Call(
        function=invocation.name,
        event=json.loads(invocation.payload or b"{}"),
        invocation_type=invocation.invocation_type,
        result=None if failed else answer,
        error=answer if failed else None,
        request_id=invocation.request_id,
    )
