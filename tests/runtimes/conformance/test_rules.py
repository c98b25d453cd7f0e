"""A conformance suite that never fails is worth nothing: each rule must catch a runtime that breaks it."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from serverfull.domain.invocations import Invocation, Outcome
from serverfull.domain.readiness import Unfit
from serverfull.errors import InvalidRequestContent
from serverfull.interfaces import Environment, FunctionIdentity, InvocationLog, Runtime
from serverfull.runtimes import pool
from serverfull.runtimes.marshal import decode_event
from serverfull.testing import runtime_kit, runtime_suite
from serverfull.testing.runtime_kit import RuntimeKit
from serverfull.testing.runtime_suite import ProcessSuite

NEVER = 1.0
"""Seconds to wait for what does not come: that it does not is what a test finds."""


class Good(Runtime):
    """Passes everything on; the classes below break one thing each."""

    deadline = 5.0
    """Seconds until a test with it gives up waiting."""

    def __init__(self, kit: RuntimeKit) -> None:
        self.inner = kit.runtime

    def check(self, function: Any) -> None:
        self.inner.check(function)

    def environment(self, identity: FunctionIdentity) -> Environment:
        return GoodEnvironment(self, self.inner.environment(identity))

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        return await self.inner.unfit(identity)

    def provision(self, *args: Any) -> None:
        self.inner.provision(*args)

    async def run(self, environment: Environment, invocation: Invocation, log: InvocationLog) -> Outcome:
        return await environment.run(invocation, log)

    async def end(self, environment: Environment) -> None:
        await environment.aclose()

    def failure(self) -> str | None:
        return None


@dataclass
class GoodEnvironment(Environment):
    runtime: Good
    inner: Environment

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        return await self.runtime.run(self.inner, invocation, log)

    @property
    def failure(self) -> str | None:
        return self.runtime.failure()

    async def aclose(self) -> None:
        await self.runtime.end(self.inner)


def of_outcomes(change: Callable[[Outcome], Outcome]) -> type[Good]:
    class Changed(Good):
        async def run(self, *args: Any) -> Outcome:
            return change(await super().run(*args))

    return Changed


def of_calls(change: Callable[[Invocation], Invocation]) -> type[Good]:
    class Changed(Good):
        async def run(self, environment: Environment, invocation: Invocation, log: InvocationLog) -> Outcome:
            return await super().run(environment, change(invocation), log)

    return Changed


def of_functions(change: Callable[[FunctionIdentity], FunctionIdentity]) -> type[Good]:
    class Changed(Good):
        def environment(self, identity: FunctionIdentity) -> Environment:
            return super().environment(change(identity))

    return Changed


def with_error(kind: str, change: Callable[[Outcome], Outcome]) -> type[Good]:
    return of_outcomes(lambda outcome: change(outcome) if kind.encode() in outcome.payload else outcome)


def spaced(outcome: Outcome) -> Outcome:
    return replace(outcome, payload=json.dumps(json.loads(outcome.payload), indent=1).encode())


def without_trace(outcome: Outcome) -> Outcome:
    fields = json.loads(outcome.payload)
    del fields["stackTrace"]
    return replace(outcome, payload=json.dumps(fields).encode())


def only_objects(invocation: Invocation) -> Invocation:
    return invocation if invocation.payload.startswith(b"{") else replace(invocation, payload=b"{}")


def valid(invocation: Invocation) -> Invocation:
    try:
        decode_event(invocation.payload)
    except InvalidRequestContent:
        return replace(invocation, payload=b"{}")
    return invocation


def variables(change: Callable[[dict[str, str]], dict[str, str]]) -> type[Good]:
    def changed(identity: FunctionIdentity) -> FunctionIdentity:
        environment = change(dict(identity.function.environment))
        return replace(identity, function=replace(identity.function, environment=environment))

    return of_functions(changed)


class Nothing:
    log_stream = ""

    def write(self, text: str) -> None: ...

    def initialising(self, how: str, at: float, runtime: str = "") -> None: ...

    def initialised(self, seconds: float, status: str, error_type: str = "") -> None: ...

    def extension(self, name: str, state: str, events: Sequence[str], error_type: str) -> None: ...

    def subscribed(self, api: str, name: str, types: Sequence[str]) -> None: ...

    def timed_out(self) -> None: ...

    def restoring(self, at: float, runtime: str) -> None: ...

    def restored(self, seconds: float, billed: float, status: str, error_type: str = "") -> None: ...


class NoLog(Good):
    async def run(self, environment: Environment, invocation: Invocation, log: InvocationLog) -> Outcome:
        nothing = Nothing()
        outcome = await super().run(environment, invocation, nothing)
        log.log_stream = nothing.log_stream
        return outcome


class OneLog(Good):
    first: Any = None

    async def run(self, environment: Environment, invocation: Invocation, log: InvocationLog) -> Outcome:
        self.first = self.first or log
        return await super().run(environment, invocation, self.first)


class OneByOne(Good):
    deadline = NEVER

    def __init__(self, kit: RuntimeKit) -> None:
        super().__init__(kit)
        self.lock = asyncio.Lock()

    async def run(self, *args: Any) -> Outcome:
        async with self.lock:
            return await super().run(*args)


class OneForAll(Good):
    one: Environment | None = None

    def environment(self, identity: FunctionIdentity) -> Environment:
        self.one = self.one or super().environment(identity)
        return self.one


class AnswerOfTheOneBefore(Good):
    before: Outcome | None = None

    async def run(self, *args: Any) -> Outcome:
        outcome = await super().run(*args)
        before, self.before = self.before or outcome, outcome
        return before


class NewAfterEachCall(Good):
    async def run(self, environment: Environment, *args: Any) -> Outcome:
        outcome = await super().run(environment, *args)
        await environment.aclose()
        return outcome


class GivesUpWithItsCaller(Good):
    gave_up = False

    async def run(self, *args: Any) -> Outcome:
        if self.gave_up:
            raise RuntimeError("a caller has gone away")
        try:
            return await super().run(*args)
        except asyncio.CancelledError:
            self.gave_up = True
            raise


class FailsForGood(Good):
    failed = False

    async def run(self, *args: Any) -> Outcome:
        outcome = await super().run(*args)
        self.failed |= outcome.function_error is not None
        return outcome

    def failure(self) -> str | None:
        return "it has failed once" if self.failed else None


class RemembersItsFailure(Good):
    deadline = NEVER
    failed: Outcome | None = None

    async def run(self, *args: Any) -> Outcome:
        outcome = self.failed or await super().run(*args)
        self.failed = outcome if outcome.function_error else None
        return outcome


class Unwilling(Good):
    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        return Unfit("not here")


class ProvisionsNothing(Good):
    deadline = NEVER

    def provision(self, *args: Any) -> None: ...


class Deaf(Good):
    deadline = NEVER

    async def end(self, environment: Environment) -> None: ...


class EndsWhatRuns(Good):
    def __init__(self, kit: RuntimeKit) -> None:
        super().__init__(kit)
        self.running: set[asyncio.Task[Outcome]] = set()

    async def run(self, *args: Any) -> Outcome:
        task = asyncio.create_task(super().run(*args))
        self.running.add(task)
        return await task

    async def end(self, environment: Environment) -> None:
        for task in self.running:
            task.cancel()


class NeverEnds(Good):
    """The kit that it is in has nothing to close it with."""


class StartsForEachCall(Good):
    """The pool that it uses forgets what has failed."""


async def nothing() -> None: ...


renamed = {"Sandbox.Timedout": b"Timeout", "Runtime.ExitError": b"Crash", "Runtime.MarshalError": b"Unwritable"}


def renames(kind: str) -> type[Good]:
    return with_error(kind, lambda o: replace(o, payload=o.payload.replace(kind.encode(), renamed[kind])))


BREAKS: dict[str, type[Good]] = {
    "a_result_has_the_bytes_that_the_runtimes_client_writes": of_outcomes(spaced),
    "every_json_value_is_an_event": of_calls(only_objects),
    "no_bytes_are_an_empty_object": of_calls(lambda call: replace(call, payload=call.payload or b"null")),
    "an_event_that_is_no_json_is_refused_and_no_code_sees_it": of_calls(valid),
    "a_large_event_arrives_whole": of_calls(lambda call: replace(call, payload=call.payload[:1_000_000] + b'"}')),
    "a_result_up_to_the_limit_arrives_and_a_larger_one_is_an_error": of_outcomes(
        lambda outcome: replace(outcome, payload=outcome.payload[:1_000_000])
    ),
    "a_result_that_cannot_be_written_is_an_error": renames("Runtime.MarshalError"),
    "what_a_handler_raises_is_a_document_with_type_message_and_trace": with_error("Refused", without_trace),
    "what_a_handler_raises_is_in_its_log": NoLog,
    "an_environment_goes_on_after_an_error": NewAfterEachCall,
    "at_its_timeout_an_invocation_is_answered_and_the_next_one_runs": renames("Sandbox.Timedout"),
    "a_handler_that_ends_its_process_has_ended_its_invocation": renames("Runtime.ExitError"),
    "nothing_that_a_handler_does_once_makes_its_function_fail_for_good": FailsForGood,
    "output_is_in_the_log_of_the_invocation_that_wrote_it": OneLog,
    "the_context_says_what_runs": of_calls(lambda call: replace(call, qualifier=None)),
    "the_time_left_is_that_of_the_invocation": of_functions(lambda one: replace(one, timeout=one.timeout / 2)),
    "the_context_says_what_the_caller_sent_and_forgets_it": of_calls(lambda call: replace(call, tenant_id="always")),
    "a_function_has_its_own_variables_and_those_of_aws": variables(lambda _: {}),
    "a_function_has_its_own_variables_over_the_usual_ones_and_not_over_the_reserved": variables(lambda _: {}),
    "a_variable_that_a_function_sets_is_not_seen_by_others": OneForAll,
    "calls_at_the_same_time_run_at_the_same_time": OneByOne,
    "each_of_many_calls_has_its_own_answer_and_log": AnswerOfTheOneBefore,
    "a_caller_that_gives_up_harms_nobody_else": GivesUpWithItsCaller,
    "a_function_that_can_run_is_said_to_be_fit": Unwilling,
    "environments_to_be_kept_ready_are_or_there_is_a_reason": ProvisionsNothing,
    "closing_an_environment_lets_what_runs_end": EndsWhatRuns,
    "output_of_loading_is_in_the_log_of_the_first_invocation": NoLog,
    "code_that_cannot_be_loaded_fails_its_calls_until_it_can": RemembersItsFailure,
    "a_caller_that_gives_up_while_code_is_loaded_harms_nobody": GivesUpWithItsCaller,
    "code_is_loaded_once_for_calls_one_after_the_other": NewAfterEachCall,
    "a_process_that_is_killed_ends_its_invocation_alone": renames("Runtime.ExitError"),
    "a_process_beyond_its_timeout_is_killed": renames("Sandbox.Timedout"),
    "a_process_that_takes_too_much_memory_is_killed": of_functions(lambda one: replace(one, memory_size=4096)),
    "calls_at_the_same_time_have_processes_of_their_own": OneByOne,
    "what_the_host_has_in_its_environment_is_its_own": variables(lambda own: {**os.environ, **own}),
    "the_first_call_says_how_long_loading_took_and_each_how_much_memory": of_outcomes(
        lambda outcome: replace(outcome, init_seconds=None)
    ),
    "code_that_cannot_be_loaded_is_not_started_for_every_call": StartsForEachCall,
    "processes_end_with_their_environment": Deaf,
    "no_process_is_left_when_the_runtime_has_ended": NeverEnds,
}


def test_each_rule_has_a_runtime_that_breaks_it() -> None:
    assert {name for name in dir(ProcessSuite) if name.startswith("test_")} == {f"test_{rule}" for rule in BREAKS}


@pytest.mark.parametrize("rule", BREAKS)
async def test_each_rule_catches_a_runtime_that_breaks_it(
    process_kit: Callable[..., RuntimeKit], monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    for module in (runtime_kit, runtime_suite):
        monkeypatch.setattr(module, "DEADLINE", BREAKS[rule].deadline)
    if BREAKS[rule] is StartsForEachCall:
        monkeypatch.setattr(pool._Crashes, "remembered", lambda *_: None)
    kit = process_kit()
    broken = replace(kit, runtime=BREAKS[rule](kit), close=nothing if BREAKS[rule] is NeverEnds else kit.close)
    test: Any = getattr(ProcessSuite(), f"test_{rule}")
    given: dict[str, Any] = {"monkeypatch": monkeypatch, "status": 7, "why": "with error: exit status 7"}
    taken = {name: value for name, value in given.items() if name in inspect.signature(test).parameters}
    with pytest.raises((Exception, asyncio.CancelledError, pytest.fail.Exception)):
        await test(broken, **taken)
