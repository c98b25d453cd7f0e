"""What a call in mock mode can ask for with headers: a declared error, a delay, a refusal. As decorators.

================================================ ======================================================================
header                                           what happens
================================================ ======================================================================
``X-Amz-Invocation-Type: Error`` with            the call ends with that error, which the function declares; the event
``X-Error-Type: TYPE``                           is not validated
``X-Serverfull-Mock-Latency: 250ms`` (or         the answer comes that much later; beyond the function's timeout the
seconds, ``0.25``)                               call times out
``X-Serverfull-Mock-Throttle: REASON``           429 with that reason, before anything else
================================================ ======================================================================

`MockInvocationReader` reads them, `SimulatingInvoker` refuses, and `SimulatingRuntime` does the rest where a handler
would run, so that limits, logs and figures are those of a real call. `wiring.modes` puts them in place of what they
wrap where a host is in mock mode; otherwise nothing of this is loaded or asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from serverfull.config.values import duration
from serverfull.contracts.contract import contract_of
from serverfull.domain.invocations import Invocation, Outcome, Simulation
from serverfull.domain.names import shown
from serverfull.errors import InvalidParameterValue, TooManyRequests, UnknownRequestMockError
from serverfull.interfaces import Environment, Runtime
from serverfull.invocation.requests import InvocationReader
from serverfull.runtimes import failures
from serverfull.runtimes.error_reports import ErrorReport, error_log_text
from serverfull.runtimes.marshal import decode_event

if TYPE_CHECKING:
    from serverfull.domain.functions import Function
    from serverfull.domain.names import FunctionReference
    from serverfull.interfaces import Fetcher, FunctionIdentity, InvocationLog
    from serverfull.invocation.invoker import Invoker
    from serverfull.invocation.requests import Headers
    from serverfull.observability.metrics import Metrics

ERROR = "Error"
"""The invocation type that asks for a declared error; AWS has none of that name."""

ERROR_TYPE_HEADER = "X-Error-Type"
LATENCY_HEADER = "X-Serverfull-Mock-Latency"
THROTTLE_HEADER = "X-Serverfull-Mock-Throttle"

THROTTLE_REASONS = (
    "ConcurrentInvocationLimitExceeded",
    "FunctionInvocationRateLimitExceeded",
    "ReservedFunctionConcurrentInvocationLimitExceeded",
    "ReservedFunctionInvocationRateLimitExceeded",
    "CallerRateLimitExceeded",
    "ConcurrentSnapshotCreateLimitExceeded",
)
"""The values of ``ThrottleReason``.

AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
"""


class MockInvocationReader(InvocationReader):
    """Reads invocations with what they ask to be simulated; see `InvocationReader` for the parameters."""

    def __init__(self, account: str, region: str, spell: Callable[[str], str] = str) -> None:
        super().__init__(account, region, spell)
        self._error_type = spell(ERROR_TYPE_HEADER)
        self._latency = spell(LATENCY_HEADER)
        self._throttle = spell(THROTTLE_HEADER)

    def read(self, reference: FunctionReference, headers: Headers, request_id: str) -> Invocation:
        """Read an invocation from its headers.

        :raises InvalidParameterValue: a header of mock mode is malformed, or stands where it means nothing.
        """
        invocation = super().read(reference, headers, request_id)
        get = headers.get
        latency, throttle, error_type = get(self._latency), get(self._throttle), get(self._error_type)
        wants_error = get(self._invocation_type) == ERROR
        if wants_error or latency is not None or throttle is not None or error_type is not None:
            invocation.simulation = Simulation(
                error_type=_error_type(error_type, wanted=wants_error),
                latency=0.0 if latency is None else _latency(latency),
                throttle=None if throttle is None else _throttle(throttle),
            )
        return invocation

    def invocation_type(self, kind: str) -> Any:
        """Take ``Error`` as well: a synchronous call, whose caller waits for the error."""
        return "RequestResponse" if kind == ERROR else super().invocation_type(kind)


def _error_type(error_type: str | None, *, wanted: bool) -> str | None:
    if wanted and not error_type:
        raise InvalidParameterValue(
            f"X-Amz-Invocation-Type: {ERROR} needs the header {ERROR_TYPE_HEADER} with the type of a declared error."
        )
    if error_type is not None and not wanted:
        raise InvalidParameterValue(f"{ERROR_TYPE_HEADER} needs X-Amz-Invocation-Type: {ERROR}.")
    return error_type


def _latency(text: str) -> float:
    try:
        seconds = duration(text.strip())
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InvalidParameterValue(
            f"{LATENCY_HEADER} takes a duration such as 250ms or 1.5s, or a number of seconds, not '{shown(text)}'."
        )
    return seconds


def _throttle(reason: str) -> str:
    if reason not in THROTTLE_REASONS:
        raise InvalidParameterValue(
            f"{THROTTLE_HEADER} takes one of {', '.join(THROTTLE_REASONS)}, not '{shown(reason)}'."
        )
    return reason


class SimulatingInvoker:
    """Stands before an `Invoker` and refuses calls that ask for it.

    :param invoker: does the work.
    :param fetcher: resolves the names of calls that ask for an error.
    :param metrics: where refusals are counted, as real ones are.
    """

    def __init__(self, invoker: Invoker, fetcher: Fetcher, metrics: Metrics) -> None:
        self._invoker = invoker
        self._fetcher = fetcher
        self._metrics = metrics

    def invoke(self, invocation: Invocation) -> Coroutine[Any, Any, Outcome]:
        """Do what `Invoker.invoke` does. No coroutine of its own for calls that ask for nothing: they are nearly all.

        :raises UnknownRequestMockError: the function does not declare the error that is asked for.
        :raises TooManyRequests: that was asked for.
        """
        if invocation.simulation is None:
            return self._invoker.invoke(invocation)
        return self._invoke(invocation, invocation.simulation)

    async def _invoke(self, invocation: Invocation, asked: Simulation) -> Outcome:
        await self._prepare(invocation, asked)
        return await self._invoker.invoke(invocation)

    async def accept_event(self, invocation: Invocation) -> None:
        """Do what `Invoker.accept_event` does; a delay or an error comes when the event runs."""
        if invocation.simulation is not None:
            await self._prepare(invocation, invocation.simulation)
        await self._invoker.accept_event(invocation)

    async def check(self, invocation: Invocation) -> None:
        """Do what `Invoker.check` does."""
        if invocation.simulation is not None:
            await self._prepare(invocation, invocation.simulation)
        await self._invoker.check(invocation)

    async def _prepare(self, invocation: Invocation, asked: Simulation) -> None:
        await self._invoker.check(invocation)  # an unknown function is not found, whatever else is asked for
        if asked.throttle is not None:
            self._metrics.function(invocation.name).throttled(asked.throttle)
            raise TooManyRequests(asked.throttle)
        if asked.error_type is not None:
            function = await self._fetcher.fetch(invocation.name, invocation.qualifier)
            name, message = declared_error(invocation.name, function, asked.error_type)
            invocation.simulation = asked._replace(error_type=name, error_message=message)


def declared_error(name: str, function: Function, error_type: str) -> tuple[str, str]:
    """Find an error that a function declares, whatever the case of its type; gives its type and message.

    Where two types differ in case alone, the one that is spelt as asked for is found.

    :raises UnknownRequestMockError: it declares no such error.
    """
    declared = contract_of(name, function).errors
    alike = [error for error in declared if error.error_type.casefold() == error_type.casefold()]
    if not alike:
        choices = dict.fromkeys(error.error_type for error in declared)
        raise UnknownRequestMockError(shown(error_type), tuple(choices))
    found = next((error for error in alike if error.error_type == error_type), alike[0])
    return found.error_type, found.message


class SimulatingRuntime(Runtime):
    """Makes environments in which calls end as they ask for.

    :param runtime: makes the environments for all other calls.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def check(self, function: Function) -> None:
        """Ask the wrapped runtime."""
        self._runtime.check(function)

    def environment(self, identity: FunctionIdentity) -> SimulatingEnvironment:
        """Wrap the environment that the wrapped runtime makes."""
        return SimulatingEnvironment(self._runtime.environment(identity), identity)


class SimulatingEnvironment(Environment):
    """Runs the invocations of one function, and lets those that ask for it be late or fail."""

    def __init__(self, environment: Environment, identity: FunctionIdentity) -> None:
        self._environment = environment
        self._identity = identity

    def run(self, invocation: Invocation, log: InvocationLog) -> Coroutine[Any, Any, Outcome]:
        """Run one invocation. No coroutine of its own for those that ask for nothing: they are nearly all."""
        if invocation.simulation is None:
            return self._environment.run(invocation, log)
        return self._simulate(invocation, invocation.simulation, log)

    @property
    def failure(self) -> str | None:
        """Ask the wrapped environment."""
        return self._environment.failure

    async def aclose(self) -> None:
        """Close the wrapped environment."""
        await self._environment.aclose()

    async def _simulate(self, invocation: Invocation, asked: Simulation, log: InvocationLog) -> Outcome:
        decode_event(invocation.payload)  # what is no JSON is refused, whatever else is asked for
        timeout = self._identity.timeout
        if asked.latency >= timeout:
            await asyncio.sleep(timeout)
            return failures.timed_out(invocation.request_id, timeout)
        await asyncio.sleep(asked.latency)
        if asked.error_type is None:
            return await self._environment.run(invocation, log)
        report = ErrorReport(asked.error_type, asked.error_message, invocation.request_id)
        log.write(error_log_text(report, self._identity.log_format))
        return Outcome(report.document(), failures.UNHANDLED, status="error")
