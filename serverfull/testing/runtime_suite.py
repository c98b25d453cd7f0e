"""What every Runtime must do, as tests to inherit. Needs pytest and pytest-asyncio.

::

    class TestMyRuntime(ProcessSuite):
        @pytest.fixture
        async def kit(self, tmp_path):
            runtime = MyRuntime(...)
            numbers = itertools.count()

            def new_function():
                folder = deeds.write(tmp_path / str(next(numbers)), "python")
                return DeployedHandler(deeds.HANDLER, folder, runtime="python3.13", region=REGION), folder

            yield RuntimeKit(runtime=runtime, new_function=new_function, client=PYTHON, close=runtime.aclose)
            await runtime.aclose()

There is a suite for each kind of runtime, and each takes in the ones before: `RuntimeSuite` for all; `LoadingSuite` for
those that load a function's code with its first invocation; `ProcessSuite` for those that run it in processes of its
own, where nothing that it does harms anybody else.

The functions do what `serverfull.testing.deeds` says. Outcomes are the same for all languages but for what
`ClientManners` names, which AWS's own runtimes do differently too.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import suppress
from typing import Any

import pytest

from serverfull.domain.limits import RESPONSE_PAYLOAD_BYTES
from serverfull.domain.names import function_arn
from serverfull.domain.readiness import Readiness
from serverfull.errors import InvalidRequestContent, SnapStartRegenerationFailure
from serverfull.testing.runtime_kit import ACCOUNT, DEADLINE, REGION, RuntimeKit, deploy, meeting

ANY_VALUES = (
    {"text": 'grüß \U0001f600 " \\ \n', "numbers": [0, -7, 9007199254740991, 0.25], "none": None, "yes": True},
    {"empty": [{}, [], ""], "deep": [[[[{"a": [1]}]]]]},
    "text",
    [1, 2],
    3.5,
    False,
    None,
)

TIMED_OUT = ("Sandbox.Timedout", "Task timed out after 1.00 seconds")

CLIENT_CONTEXT = {
    "client": {"installation_id": "phone-1"},
    "custom": {"colour": "grün"},
    "env": {"locale": "de"},
}

TRACE = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0")


def _exited(why: str) -> tuple[str, str]:
    return "Runtime.ExitError", f"Runtime exited {why}"


@pytest.mark.asyncio
class RuntimeSuite:
    """For every runtime. Subclass it, name the class ``Test…`` and provide the ``kit`` fixture."""

    @pytest.fixture
    def kit(self) -> RuntimeKit:
        """Give the runtime under test."""
        raise NotImplementedError("override the kit fixture")

    # --------------------------------------------------------------------------------------------- events and results

    async def test_a_result_has_the_bytes_that_the_runtimes_client_writes(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        for value in ANY_VALUES:
            ran = await function.do("echo", value=value)
            assert ran.result == value
            assert ran.outcome.payload == kit.client.write(value)
            assert ran.outcome.content_type == "application/json"

    async def test_every_json_value_is_an_event(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        for value in ANY_VALUES:
            assert (await function.run(json.dumps(value).encode())).result == value

    async def test_no_bytes_are_an_empty_object(self, kit: RuntimeKit) -> None:
        assert (await deploy(kit).run(b"")).result == {}

    async def test_an_event_that_is_no_json_is_refused_and_no_code_sees_it(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        before = await function.count()
        for payload in (b"{", b"\xff", b"NaN", b"1 2"):
            with pytest.raises(InvalidRequestContent):
                await function.run(payload)
        assert await function.count() == before + 1

    async def test_a_large_event_arrives_whole(self, kit: RuntimeKit) -> None:
        value = "x" * 6_000_000
        assert (await deploy(kit).do("echo", value=value)).result == value

    async def test_a_result_up_to_the_limit_arrives_and_a_larger_one_is_an_error(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        ran = await function.do("fill", bytes=RESPONSE_PAYLOAD_BYTES)
        assert len(ran.outcome.payload) == RESPONSE_PAYLOAD_BYTES
        assert ran.outcome.function_error is None
        ran = await function.do("fill", bytes=RESPONSE_PAYLOAD_BYTES + 1)
        why = f"Response payload size exceeded maximum allowed payload size ({RESPONSE_PAYLOAD_BYTES} bytes)."
        assert ran.error == {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": why}
        assert (await function.do("echo", value="next")).result == "next"

    async def test_a_result_that_cannot_be_written_is_an_error(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        assert (await function.do("unwritable")).error["errorType"] == kit.client.unwritable
        assert (await function.do("echo", value="next")).result == "next"

    # ---------------------------------------------------------------------------------------------------------- errors

    async def test_what_a_handler_raises_is_a_document_with_type_message_and_trace(self, kit: RuntimeKit) -> None:
        message = 'no "entry" für \U0001f600\nsecond line'
        ran = await deploy(kit).do("fail", message=message)
        error = ran.error
        assert (error["errorType"], error["errorMessage"]) == ("Refused", message)
        trace = error[kit.client.trace]
        assert trace
        assert all(isinstance(entry, str) for entry in trace)
        members = {"errorType", "errorMessage", kit.client.trace}
        if kit.client.tells_request_id:
            members.add("requestId")
            assert error["requestId"] == ran.request_id
        assert set(error) == members
        assert ran.outcome.status == "error"

    async def test_what_a_handler_raises_is_in_its_log(self, kit: RuntimeKit) -> None:
        ran = await deploy(kit).do("fail", message="no entry")
        assert ("no entry" in ran.log.text) is kit.client.logs_errors

    async def test_an_environment_goes_on_after_an_error(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        before = await function.count()
        assert (await function.do("fail", message="no")).reason == ("Refused", "no")
        assert await function.count() == before + 2

    async def test_at_its_timeout_an_invocation_is_answered_and_the_next_one_runs(self, kit: RuntimeKit) -> None:
        function = deploy(kit, timeout=1)
        await function.count()
        began = time.monotonic()
        ran = await function.do("stuck", text="half a line")
        assert time.monotonic() - began >= 1
        assert ran.reason == TIMED_OUT
        assert set(ran.error) == {"errorType", "errorMessage"}
        assert ran.outcome.status == "timeout"
        assert ran.log.text.startswith("half a line")
        assert TIMED_OUT[1] not in ran.log.text  # the log says so itself, when it ends
        assert (await function.do("echo", value="next")).result == "next"

    @pytest.mark.parametrize(
        ("status", "why"), [(7, "with error: exit status 7"), (0, "without providing a reason")], ids=["7", "0"]
    )
    async def test_a_handler_that_ends_its_process_has_ended_its_invocation(
        self, kit: RuntimeKit, status: int, why: str
    ) -> None:
        function = deploy(kit)
        await function.count()
        ran = await function.do("leave", status=status)
        assert ran.reason == _exited(why)
        assert set(ran.error) == {"errorType", "errorMessage"}
        assert (await function.do("echo", value="next")).result == "next"

    async def test_nothing_that_a_handler_does_once_makes_its_function_fail_for_good(self, kit: RuntimeKit) -> None:
        function = deploy(kit, timeout=1)
        for deed in ("fail", "unwritable", "leave", "stuck"):
            await function.do(deed, message="no", status=1, text="")
        assert function.environment.failure is None

    # ------------------------------------------------------------------------------------------------------------- log

    async def test_output_is_in_the_log_of_the_invocation_that_wrote_it(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        for text in ("first", "zweite ü"):
            ran = await function.do("write", text=text)
            assert ran.log.text in {f"out {text}\nerr {text}", f"err {text}out {text}\n"}
        assert (await function.do("echo", value=1)).log.text == ""

    # ----------------------------------------------------------------------------------------------- what a call knows

    async def test_the_context_says_what_runs(self, kit: RuntimeKit) -> None:
        function = deploy(kit, memory_size=300, version="7")
        name = function.identity.name
        for qualifier in (None, "$LATEST", "live"):
            ran = await function.run(b'{"do": "context"}', qualifier=qualifier)
            known = ran.result
            assert known["request_id"] == ran.request_id
            assert (known["name"], known["version"], known["memory"]) == (name, "7", "300")
            assert known["arn"] == function_arn(name, ACCOUNT, REGION, qualifier)
            log = (None, None) if kit.restores else (f"/aws/lambda/{name}", ran.log.log_stream)
            assert (known["log_group"], known["log_stream"]) == log

    async def test_the_time_left_is_that_of_the_invocation(self, kit: RuntimeKit) -> None:
        function = deploy(kit, timeout=20)
        await function.count()
        for _ in range(2):
            began = time.monotonic()
            left = (await function.do("context")).result["left"] / 1000
            assert 20 - (time.monotonic() - began) - 0.1 <= left <= 20.1

    async def test_the_context_says_what_the_caller_sent_and_forgets_it(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        sent: dict[str, Any] = {
            "client_context": CLIENT_CONTEXT,
            "cognito_identity": {"cognitoIdentityId": "id-1", "cognitoIdentityPoolId": "pool-1"},
            "tenant_id": "tenant-1",
            "trace_id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=1",
        }
        known = (await function.run(b'{"do": "context"}', **sent)).result
        assert (known["custom"], known["env"]) == (CLIENT_CONTEXT["custom"], CLIENT_CONTEXT["env"])
        assert known["installation"] == "phone-1"
        assert (known["identity"], known["identity_pool"]) == ("id-1", "pool-1")
        assert (known["tenant"], known["trace"]) == (sent["tenant_id"], sent["trace_id"])
        known = (await function.do("context")).result
        for member in ("custom", "env", "installation", "identity", "identity_pool", "tenant"):
            assert known[member] is None
        assert TRACE.fullmatch(known["trace"])

    async def test_a_function_has_its_own_variables_and_those_of_aws(self, kit: RuntimeKit) -> None:
        one = deploy(kit, lambda _: {"TABLE": "a"}, memory_size=200)
        two = deploy(kit, lambda _: {"TABLE": "b"}, memory_size=200)
        names = ["NAME", "VERSION", "MEMORY_SIZE"]
        wanted = ["TABLE", "AWS_REGION", "AWS_DEFAULT_REGION", "NOT_THERE", "AWS_LAMBDA_INITIALIZATION_TYPE"]
        wanted += [f"AWS_LAMBDA_FUNCTION_{name}" for name in names]
        wanted += ["AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME"]
        for function, table in ((one, "a"), (two, "b"), (one, "a")):
            name = function.identity.name
            ran = await function.do("variables", names=wanted)
            assert ran.result == [
                *(table, REGION, REGION, None, kit.initialization),
                *(name, "$LATEST", "200"),
                *((None, None) if kit.restores else (f"/aws/lambda/{name}", ran.log.log_stream)),
            ]

    async def test_a_function_has_its_own_variables_over_the_usual_ones_and_not_over_the_reserved(
        self, kit: RuntimeKit
    ) -> None:
        reserved = ["AWS_REGION", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_INITIALIZATION_TYPE"]
        function = deploy(kit, lambda _: dict.fromkeys(["LANG", "TZ", *reserved], "UTC"))
        shown = (await function.do("variables", names=["LANG", "TZ", *reserved])).result
        assert shown == ["UTC", "UTC", REGION, function.identity.name, kit.initialization]
        assert (await function.do("context")).result["name"] == function.identity.name

    async def test_a_variable_that_a_function_sets_is_not_seen_by_others(self, kit: RuntimeKit) -> None:
        one, two = deploy(kit), deploy(kit)
        await one.do("set", name="DEEDS_CHANGED")
        assert (await one.do("variables", names=["DEEDS_CHANGED"])).result == ["changed"]
        assert (await two.do("variables", names=["DEEDS_CHANGED"])).result == [None]

    # ----------------------------------------------------------------------------------------- calls at the same time

    async def test_calls_at_the_same_time_run_at_the_same_time(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        async with meeting(function, "a", "b", "c") as calls:
            met = await calls.end()
        assert [ran.result for ran in met] == ["a", "b", "c"]
        assert [ran.log.text for ran in met] == ["met a\n", "met b\n", "met c\n"]

    async def test_each_of_many_calls_has_its_own_answer_and_log(self, kit: RuntimeKit) -> None:
        one, two = deploy(kit), deploy(kit)
        ran = await asyncio.gather(*((one, two)[n % 2].do("context") for n in range(12)))
        assert [each.result["request_id"] for each in ran] == [each.request_id for each in ran]
        if not kit.restores:
            assert [each.result["log_stream"] for each in ran] == [each.log.log_stream for each in ran]

    async def test_a_caller_that_gives_up_harms_nobody_else(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        async with meeting(function, "a", "b") as calls:
            calls.calls[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await calls.calls[0]
            (calls.place / "last").touch()
            assert (await calls.calls[1]).result == "b"
        for value in range(3):
            ran = await function.do("echo", value=value)
            assert (ran.result, ran.log.text) == (value, "")

    # ------------------------------------------------------------------------------------------------------- lifecycle

    async def test_a_function_that_can_run_is_said_to_be_fit(self, kit: RuntimeKit) -> None:
        identity = deploy(kit).identity
        kit.runtime.check(identity.function)
        assert await kit.runtime.unfit(identity) is None

    async def test_environments_to_be_kept_ready_are_or_there_is_a_reason(self, kit: RuntimeKit) -> None:
        function, told = deploy(kit), asyncio.Queue[Readiness]()
        kit.runtime.provision(function.identity, 2, told.put_nowait)
        async with asyncio.timeout(DEADLINE):
            while (now := await told.get()).status == "IN_PROGRESS":
                pass
        assert now.wanted == 2
        wanted = kit.initialization
        if now.failure is None:
            assert now.ready == 2
            wanted = "provisioned-concurrency"
        assert (await function.do("variables", names=["AWS_LAMBDA_INITIALIZATION_TYPE"])).result == [wanted]
        kit.runtime.provision(function.identity, 0, told.put_nowait)
        while (now := told.get_nowait()).wanted:
            pass
        assert (now.ready, now.failure) == (0, None)
        assert (await function.do("echo", value="on demand")).result == "on demand"

    async def test_closing_an_environment_lets_what_runs_end(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        async with meeting(function, "a") as calls:
            await function.environment.aclose()
            await function.environment.aclose()
            assert (await calls.end())[0].result == "a"


class LoadingSuite(RuntimeSuite):
    """For runtimes that load a function's code with its first invocation."""

    async def test_output_of_loading_is_in_the_log_of_the_first_invocation(self, kit: RuntimeKit) -> None:
        function = deploy(kit, lambda _: {"DEEDS_TEXT": "loaded ü"})
        assert [(await function.do("echo", value=1)).log.text for _ in range(2)] == ["loaded ü\n", ""]

    async def test_code_that_cannot_be_loaded_fails_its_calls_until_it_can(self, kit: RuntimeKit) -> None:
        function = deploy(kit, lambda folder: {"DEEDS_NEEDS": str(folder / "needed")})
        for _ in range(2):
            ran = await function.do("echo", value="loaded")
            assert ran.reason == ("NotToday", "not today")
            assert ran.outcome.status == "error"
        (function.folder / "needed").touch()
        async with asyncio.timeout(DEADLINE):  # it may be started at growing intervals
            while (ran := await function.do("echo", value="loaded")).outcome.function_error:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert ran.result == "loaded"

    async def test_a_caller_that_gives_up_while_code_is_loaded_harms_nobody(self, kit: RuntimeKit) -> None:
        function = deploy(
            kit, lambda folder: {"DEEDS_STARTS": str(folder / "starts"), "DEEDS_WAITS": str(folder / "waited for")}
        )
        call = asyncio.create_task(function.do("echo", value="first"))
        async with asyncio.timeout(DEADLINE):
            while not (function.folder / "starts").exists():  # noqa: ASYNC110 (it runs elsewhere)
                await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        (function.folder / "waited for").touch()
        assert (await function.do("echo", value="second")).result == "second"

    async def test_code_is_loaded_once_for_calls_one_after_the_other(self, kit: RuntimeKit) -> None:
        function = deploy(kit, lambda folder: {"DEEDS_STARTS": str(folder / "starts")})
        assert [await function.count() for _ in range(3)] == [1, 2, 3]
        assert (function.folder / "starts").read_text() == "started\n"


class ProcessSuite(LoadingSuite):
    """For runtimes that run functions in processes of their own."""

    async def test_a_process_that_is_killed_ends_its_invocation_alone(self, kit: RuntimeKit) -> None:
        function, other = deploy(kit), deploy(kit)
        async with meeting(other, "a") as calls:
            pid = await function.pid()
            ran = await function.do("vanish", text="half a line")
            assert ran.reason == _exited("with error: signal: killed")
            assert ran.log.text == "half a line"
            assert await kit.ended(pid)
            assert await function.count() == 1
            assert (await calls.end())[0].result == "a"

    async def test_a_process_beyond_its_timeout_is_killed(self, kit: RuntimeKit) -> None:
        function = deploy(kit, timeout=1)
        pid = await function.pid()
        assert (await function.do("stuck", text="")).reason == TIMED_OUT
        assert await kit.ended(pid)
        assert await function.count() == 1

    async def test_a_process_that_takes_too_much_memory_is_killed(self, kit: RuntimeKit) -> None:
        function = deploy(kit, memory_size=128)
        pid = await function.pid()
        assert (await function.do("grow")).reason == _exited("with error: signal: killed")
        assert await kit.ended(pid)
        assert await function.count() == 1

    async def test_calls_at_the_same_time_have_processes_of_their_own(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        first = await function.pid()
        async with meeting(function, "a") as calls:
            second = await function.do("count")
            assert second.result == {"calls": 1, "pid": second.result["pid"]}
            assert second.result["pid"] != first
            assert (await calls.end())[0].log.log_stream != second.log.log_stream

    async def test_what_the_host_has_in_its_environment_is_its_own(
        self, kit: RuntimeKit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEEDS_SECRET", "secret")
        assert (await deploy(kit).do("variables", names=["DEEDS_SECRET"])).result == [None]

    async def test_the_first_call_says_how_long_loading_took_and_each_how_much_memory(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        outcomes = [(await function.do("echo", value=1)).outcome for _ in range(2)]
        assert outcomes[0].init_seconds
        assert 0 < outcomes[0].init_seconds < DEADLINE
        assert outcomes[1].init_seconds is None
        for outcome in outcomes:
            assert outcome.memory_mb
            assert 1 <= outcome.memory_mb <= 256

    async def test_code_that_cannot_be_loaded_is_not_started_for_every_call(self, kit: RuntimeKit) -> None:
        function = deploy(
            kit, lambda folder: {"DEEDS_STARTS": str(folder / "starts"), "DEEDS_NEEDS": str(folder / "needed")}
        )
        for _ in range(20):
            assert (await function.do("echo", value=1)).reason == ("NotToday", "not today")
        assert len((function.folder / "starts").read_text().splitlines()) < 10

    async def test_processes_end_with_their_environment(self, kit: RuntimeKit) -> None:
        function, other = deploy(kit), deploy(kit)
        pid, left, others = await function.pid(), (await function.do("spawn")).result, await other.pid()
        await function.environment.aclose()
        assert await kit.ended(pid)
        assert await kit.ended(left)
        assert await other.pid() == others

    async def test_no_process_is_left_when_the_runtime_has_ended(self, kit: RuntimeKit) -> None:
        function = deploy(kit)
        async with meeting(function, "a", "b") as calls:
            await calls.end()
        pids = [await function.pid(), (await function.do("spawn")).result]
        await kit.close()
        assert [kit.runs(pid) for pid in pids] == [False, False]
        await kit.close()


class RestoringSuite(ProcessSuite):
    """For runtimes whose processes are restored from a snapshot: the code is loaded for all of them at once."""

    async def test_output_of_loading_is_in_the_log_of_the_first_invocation(self, kit: RuntimeKit) -> None:
        """It is in none: it belongs to the snapshot."""
        function = deploy(kit, lambda _: {"DEEDS_TEXT": "loaded ü"})
        assert [(await function.do("echo", value=1)).log.text for _ in range(2)] == ["", ""]

    async def test_code_that_cannot_be_loaded_fails_its_calls_until_it_can(self, kit: RuntimeKit) -> None:
        """There is no snapshot then."""
        function = deploy(kit, lambda folder: {"DEEDS_NEEDS": str(folder / "needed")})
        for _ in range(2):
            with pytest.raises(SnapStartRegenerationFailure, match="NotToday: not today"):
                await function.do("echo", value="loaded")
        (function.folder / "needed").touch()
        async with asyncio.timeout(DEADLINE):
            while True:
                with suppress(SnapStartRegenerationFailure):
                    assert (await function.do("echo", value="loaded")).result == "loaded"
                    break
                await asyncio.sleep(0.1)

    async def test_code_that_cannot_be_loaded_is_not_started_for_every_call(self, kit: RuntimeKit) -> None:
        """Calls in between are answered by what was found."""
        function = deploy(
            kit, lambda folder: {"DEEDS_STARTS": str(folder / "starts"), "DEEDS_NEEDS": str(folder / "needed")}
        )
        for _ in range(20):
            with pytest.raises(SnapStartRegenerationFailure):
                await function.do("echo", value=1)
        assert len((function.folder / "starts").read_text().splitlines()) < 10

    async def test_code_is_loaded_once_for_all_processes(self, kit: RuntimeKit) -> None:
        """Each has what was made of it."""
        function = deploy(kit, lambda folder: {"DEEDS_STARTS": str(folder / "starts")})
        async with meeting(function, "a", "b", "c") as calls:
            await calls.end()
        assert (function.folder / "starts").read_text() == "started\n"
