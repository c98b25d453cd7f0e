"""Handlers that behave and handlers that do not, run in process behind a real server.

"In time" is shown by the order of events: the answer is there while the handler is still stuck.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from serverfull import Function
from serverfull.errors import TargetInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("sync", "async", "own")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end of the test, so that stuck handlers end."""
    event = threading.Event()
    yield event
    event.set()


def of_kind(kind: str, body: Callable[..., Any], **options: Any) -> Function:
    """Make a Function of a kind whose handler calls ``body``."""
    if kind == "sync":
        return Function(lambda event, context: body(event, context), **options)

    async def handler(event: Any, context: Any) -> Any:
        await asyncio.sleep(0)
        return body(event, context)

    return Function(handler, loop="own" if kind == "own" else "host", **options)


class Callable2:
    def __call__(self, event: Any, context: Any) -> Any:
        return ["called", event, context.function_name]

    def method(self, event: Any) -> Any:
        return ["method", event]

    async def async_method(self, event: Any, context: Any) -> Any:
        return ["async method", event]

    @classmethod
    def class_method(cls, event: Any, context: Any) -> Any:
        return [cls.__name__, event]


class AsyncCallable:
    async def __call__(self, event: Any) -> Any:
        return ["awaited", event]


async def async_two(first: Any, event: Any, context: Any) -> Any:
    return [first, event]


HANDLERS: dict[str, tuple[Any, Any]] = {
    "none": (lambda: "no parameter", "no parameter"),
    "one": (lambda event: event, {"x": 1}),
    "two": (lambda event, context: [event, context.function_name], [{"x": 1}, "two"]),
    "defaulted": (lambda event, context=None, extra=7: [event, context is None, extra], [{"x": 1}, False, 7]),
    "variadic": (lambda *given: len(given), 2),
    "object": (Callable2(), ["called", {"x": 1}, "object"]),
    "method": (Callable2().method, ["method", {"x": 1}]),
    "async_method": (Callable2().async_method, ["async method", {"x": 1}]),
    "class_method": (Callable2.class_method, ["Callable2", {"x": 1}]),
    "async_object": (AsyncCallable(), ["awaited", {"x": 1}]),
    "async_partial": (functools.partial(async_two, "bound"), ["bound", {"x": 1}]),
    "partial": (functools.partial(lambda first, event: [first, event], 1), [1, {"x": 1}]),
    "nested": (Function(Function(lambda event: ["inner", event])), ["inner", {"x": 1}]),
}


async def test_every_shape_of_handler_gets_its_event_and_context(start_host: Any) -> None:
    host = await start_host({name: handler for name, (handler, _) in HANDLERS.items()})
    for name, (_, expected) in HANDLERS.items():
        answer = await host.invoke(name, {"x": 1})
        assert (answer.status, answer.function_error, answer.json()) == (200, None, expected), name


@pytest.mark.parametrize("kind", KINDS)
async def test_results_and_errors_of_each_kind_of_handler(start_host: Any, kind: str) -> None:
    def body(event: Any, context: Any) -> Any:
        if event == "fail":
            raise LookupError("nothing there")
        return {"echo": event, "remaining": context.get_remaining_time_in_millis() > 0}

    host = await start_host({"f": of_kind(kind, body)})
    good = await host.invoke("f", [1, "zwei"])
    assert good.json() == {"echo": [1, "zwei"], "remaining": True}
    assert good.headers["x-amz-executed-version"] == "$LATEST"
    bad = await host.invoke("f", "fail")
    assert (bad.status, bad.function_error) == (200, "Unhandled")
    document = bad.json()
    assert document["errorType"] == "LookupError"
    assert document["errorMessage"] == "nothing there"
    assert document["requestId"] == bad.request_id
    assert "in body" in document["stackTrace"][-1]
    assert not any("/runtimes/inprocess.py" in entry for entry in document["stackTrace"])


class Refusing(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def raises(cls, value: int) -> int:
        raise LookupError("not a ValueError")


async def test_the_trace_of_a_validator_that_raises_starts_outside_the_host(start_host: Any) -> None:
    def handler(event: Refusing) -> None: ...

    host = await start_host({"f": Function(handler)})
    document = (await host.invoke("f", {"n": 1})).json()
    assert (document["errorType"], document["errorMessage"]) == ("LookupError", "not a ValueError")
    assert "in raises" in document["stackTrace"][-1]
    assert not any("/serverfull/" in entry for entry in document["stackTrace"])


class Custom(BaseException):
    pass


class EvilText(Exception):
    def __str__(self) -> str:
        raise SystemExit("from __str__")


class EvilCode(SystemExit):
    @property  # type: ignore[override]
    def code(self) -> Any:
        raise ValueError("no code for you")


class EvilString(str):
    __slots__ = ()

    def __add__(self, other: object) -> str:
        raise ValueError("not addable")

    def __radd__(self, other: object) -> str:
        raise ValueError("not addable")


def recurse(event: Any = None, context: Any = None) -> Any:
    return recurse(event, context)


def from_strange_file() -> None:
    class Loader:
        def get_source(self, name: str) -> str:
            raise ValueError("traceback cannot be made")

    source = compile("raise LookupError('strange')", "strange.py", "exec")
    exec(source, {"__name__": "strange", "__loader__": Loader()})


def raise_(error: BaseException) -> Any:
    raise error


EXITS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "exit0": (lambda: sys.exit(0), "Runtime.ExitError", "Runtime exited without providing a reason"),
    "exit": (sys.exit, "Runtime.ExitError", "Runtime exited without providing a reason"),
    "exit3": (lambda: sys.exit(3), "Runtime.ExitError", "Runtime exited with error: exit status 3"),
    "exit_text": (lambda: sys.exit("so long"), "Runtime.ExitError", "Runtime exited with error: exit status 1"),
    "exit_evil": (lambda: sys.exit(EvilString("x")), "Runtime.ExitError", "exit status 1"),
    "interrupt": (lambda: raise_(KeyboardInterrupt()), "Runtime.ExitError", "signal: interrupt"),
    "generator_exit": (lambda: raise_(GeneratorExit()), "Runtime.ExitError", "exit status 1"),
    "custom": (lambda: raise_(Custom("base")), "Runtime.ExitError", "exit status 1"),
    "cancelled": (lambda: raise_(asyncio.CancelledError()), "Runtime.ExitError", "exit status 1"),
    "recursion": (recurse, "RecursionError", "maximum recursion depth exceeded"),
    "evil_text": (lambda: raise_(EvilText()), "EvilText", "__str__ failed: SystemExit"),
    "evil_code": (lambda: raise_(EvilCode()), "", ""),
    "strange_file": (from_strange_file, "LookupError", "cannot be described"),
    "stop_iteration": (lambda: raise_(StopIteration("enough")), "", ""),
    "async_stop": (lambda: raise_(StopAsyncIteration("enough")), "", ""),
    "group": (lambda: raise_(BaseExceptionGroup("g", [SystemExit(1)])), "Runtime.ExitError", "exit status 1"),
    "timeout": (lambda: raise_(TimeoutError("mine")), "TimeoutError", "mine"),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_a_handler_raises_is_its_result_and_the_host_goes_on(start_host: Any, kind: str) -> None:
    host = await start_host(
        {name: of_kind(kind, lambda e, c, do=do: do(), timeout=10) for name, (do, _, _) in EXITS.items()}
    )
    for name, (_, error_type, message) in EXITS.items():
        for _ in range(2):  # the second call shows that the first one broke nothing
            answer = await host.invoke(name)
            assert (answer.status, answer.function_error) == (200, "Unhandled"), (name, answer)
            document = answer.json()
            assert document["errorType"] != "Sandbox.Timedout", name
            assert error_type in document["errorType"], (name, document)
            assert message in document["errorMessage"], (name, document)
            if document["errorType"] == "Runtime.ExitError":
                assert document["errorMessage"].startswith(f"RequestId: {answer.request_id} Error: "), name


async def test_the_text_that_a_handler_exits_with_is_in_its_log(start_host: Any) -> None:
    host = await start_host({"f": lambda: sys.exit("so long"), "g": lambda: sys.exit(["so", "long"])})
    assert "so long\n" in (await host.tail("f")).tail()
    assert "['so', 'long']\n" in (await host.tail("g")).tail()


@pytest.mark.parametrize("kind", KINDS)
async def test_where_an_exit_came_from_is_in_the_log_as_a_process_that_it_ends_would_have_it(
    start_host: Any, kind: str
) -> None:
    def body(event: Any, context: Any) -> None:
        raise_({"cancelled": asyncio.CancelledError("why"), "interrupt": KeyboardInterrupt()}[event])

    host = await start_host({"f": of_kind(kind, body)})
    for event, last_line in (("cancelled", "CancelledError: why"), ("interrupt", "KeyboardInterrupt")):
        lines = (await host.tail("f", event)).tail().splitlines()
        start = lines.index("Traceback (most recent call last):")
        assert "in body" in lines[lines.index(last_line, start) - 4]
        assert __file__ in lines[start + 1]


def spin(release: threading.Event) -> None:
    while True:
        pass


def block_in_c(release: threading.Event) -> None:
    release.wait()


def swallow_everything(release: threading.Event) -> None:
    while not release.is_set():
        try:
            while not release.is_set():
                time.sleep(0.005)
        except BaseException:
            pass


def wait_for_lock(release: threading.Event) -> None:
    lock = threading.Lock()
    lock.acquire()
    while not lock.acquire(timeout=60) and not release.is_set():
        pass


STUCK = {"spin": spin, "block_in_c": block_in_c, "swallow": swallow_everything}


@pytest.mark.parametrize("how", STUCK)
@pytest.mark.parametrize("kind", ["sync", "own"])
async def test_a_timeout_is_answered_while_the_handler_is_still_stuck(
    start_host: Any, release: threading.Event, kind: str, how: str
) -> None:
    ended = threading.Event()

    def body(event: Any, context: Any) -> None:
        if event == "quick":
            return
        try:
            STUCK[how](release)
        finally:
            ended.set()

    host = await start_host({"stuck": of_kind(kind, body, timeout=0.1), "other": lambda: "fine"})
    answer = await host.tail("stuck")
    if how != "spin":
        assert not ended.is_set()
    assert (answer.status, answer.function_error) == (200, "Unhandled")
    assert answer.json() == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {answer.request_id} Error: Task timed out after 0.10 seconds",
    }
    assert f"{answer.request_id} Task timed out after 0.10 seconds" in answer.tail()
    assert "Status: timeout" in answer.tail()
    assert (await host.invoke("other")).json() == "fine"
    environment = host.host.invoker._units["stuck"].environment
    if how != "spin":  # a spinning one may end before anyone looks
        await host.until(lambda: environment.lost)
        assert (await host.invoke("stuck", "quick")).json() is None
        assert not ended.is_set()
        release.set()
    await host.until(ended.is_set)
    await host.until(lambda: not environment.lost)


async def test_an_async_handler_that_swallows_its_cancellation_is_answered_in_time(start_host: Any) -> None:
    ended, go = asyncio.Event(), asyncio.Event()

    async def handler(event: Any, context: Any) -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        return "late"

    host = await start_host({"f": Function(handler, timeout=0.05, max_concurrency=1)})
    for _ in range(3):  # the permit is free again each time
        answer = await host.invoke("f")
        assert answer.json()["errorType"] == "Sandbox.Timedout"
        assert not ended.is_set()
    go.set()
    async with asyncio.timeout(5):
        await ended.wait()


async def test_after_a_set_number_of_lost_threads_the_function_is_failed_until_they_end(
    start_host: Any, release: threading.Event
) -> None:
    host = await start_host(
        {"stuck": Function(lambda: release.wait(), timeout=0.05), "other": lambda: "fine"},
        limits={"max_lost_threads": 2},
    )
    for _ in range(2):
        assert (await host.invoke("stuck")).json()["errorType"] == "Sandbox.Timedout"
    refused = await host.invoke("stuck")
    assert (refused.status, refused.error_type) == (409, "ResourceConflictException")
    assert "Failed" in refused.json()["message"]
    shown = (await host.request("GET", "/2015-03-31/functions/stuck")).json()["Configuration"]
    assert shown["State"] == "Failed"
    assert (await host.request("GET", "/2015-03-31/functions/other")).json()["Configuration"]["State"] == "Active"
    assert (await host.invoke("other")).json() == "fine"
    release.set()
    await host.until(lambda: host.host.invoker.failure_of("stuck") is None)
    assert (await host.invoke("stuck")).json() is True
    shown = (await host.request("GET", "/2015-03-31/functions/stuck")).json()["Configuration"]
    assert shown["State"] == "Active"


async def test_no_lost_thread_allowed_does_not_mean_that_every_function_is_failed(
    start_host: Any, release: threading.Event
) -> None:
    host = await start_host(
        {"f": Function(lambda event: event == "wait" and release.wait(), timeout=0.05)},
        limits={"max_lost_threads": 0},
    )
    assert (await host.invoke("f", "go")).status == 200
    assert (await host.invoke("f", "wait")).json()["errorType"] == "Sandbox.Timedout"
    assert (await host.invoke("f", "go")).status == 409


async def test_a_late_result_never_goes_to_another_call(start_host: Any) -> None:
    gates = {number: threading.Event() for number in range(20)}

    def handler(event: Any) -> Any:
        gates[event].wait(20)
        return ["result of", event]

    host = await start_host({"slow": Function(handler, timeout=0.2)}, limits={"max_lost_threads": 100})
    late = [asyncio.create_task(host.invoke("slow", number)) for number in range(10)]
    for answer in await asyncio.gather(*late):
        assert answer.json()["errorType"] == "Sandbox.Timedout"
    next_ones = [asyncio.create_task(host.invoke("slow", number)) for number in range(10, 20)]
    for gate in gates.values():
        gate.set()
    for number, answer in zip(range(10, 20), await asyncio.gather(*next_ones), strict=True):
        assert answer.json() == ["result of", number]


@pytest.mark.parametrize("kind", ["sync", "own"])
async def test_200_timeouts_in_a_row_leak_no_threads_and_no_permits(start_host: Any, kind: str) -> None:
    async def nap(event: Any) -> None:
        await asyncio.sleep(60)

    def wait() -> None:
        while True:
            time.sleep(0.001)

    function = Function(wait, timeout=0.01) if kind == "sync" else Function(nap, timeout=0.01, loop="own")
    host = await start_host({"f": function}, limits={"max_lost_threads": 1000, "max_concurrency": 8})
    await asyncio.gather(*[host.invoke("f") for _ in range(8)])
    environment = host.host.invoker._units["f"].environment
    await host.until(lambda: not environment.lost)

    def threads_of_handlers() -> int:
        # By their names: other threads (of the client, of hosts that have just ended) come and go as they like.
        return sum(
            thread.name.startswith(("serverfull-handler", "serverfull-loop")) for thread in threading.enumerate()
        )

    before = threads_of_handlers()
    for _ in range(24):
        answers = await asyncio.gather(*[host.invoke("f") for _ in range(8)])
        assert {answer.json()["errorType"] for answer in answers} == {"Sandbox.Timedout"}
    await host.until(lambda: not environment.lost)
    await host.until(lambda: threads_of_handlers() <= before)
    await host.until(lambda: host.host.admission.running == 0)


async def test_a_handler_that_ends_its_process_from_a_pool_thread_only_ends_its_call(start_host: Any) -> None:
    async def handler(event: Any) -> Any:
        return await asyncio.to_thread(sys.exit, 4)

    host = await start_host({"f": handler, "own": Function(handler, loop="own")})
    for name in ("f", "own"):
        for _ in range(2):
            assert "exit status 4" in (await host.invoke(name)).json()["errorMessage"]


async def test_a_task_of_an_own_loop_that_exits_does_not_end_the_loop(start_host: Any) -> None:
    async def leave() -> None:
        sys.exit(5)

    async def handler(event: Any) -> Any:
        if event == "fine":
            return "fine"
        await asyncio.gather(leave())
        return "not reached"

    host = await start_host({"own": Function(handler, loop="own", timeout=1)})
    for _ in range(2):
        assert "exit status 5" in (await host.invoke("own")).json()["errorMessage"]
        assert (await host.invoke("own", "fine")).json() == "fine"


async def test_an_own_loop_that_its_handler_stops_is_replaced(start_host: Any) -> None:
    async def handler(event: Any) -> Any:
        if event == "stop":
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
        return "fine"

    host = await start_host({"own": Function(handler, loop="own", timeout=1)})
    for _ in range(3):
        await host.invoke("own", "stop")
        answers = [await host.invoke("own") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert answers[-1].json() == "fine"


async def test_a_generator_as_handler_is_an_error_that_hangs_nobody(start_host: Any) -> None:
    def generator(event: Any) -> Any:
        yield event

    with pytest.raises(TargetInvalid, match="is a generator"):
        await start_host({"g": generator})
    host = await start_host({"coroutine": lambda: AsyncCallable()(1), "other": lambda: "fine"})
    assert (await host.invoke("coroutine")).json()["errorType"] == "Runtime.MarshalError"
    assert (await host.invoke("other")).json() == "fine"


async def test_a_fetcher_that_makes_a_new_function_for_each_call_leaves_nothing_behind(start_host: Any) -> None:
    import gc

    from serverfull import Fetcher

    async def handler(event: Any) -> Any:
        return event

    class Fresh(Fetcher):
        async def fetch(self, name: str, qualifier: str | None = None) -> Function:
            return Function(handler, loop="own")

        async def list(self) -> Any:
            return {}

    host = await start_host(Fresh())
    assert (await host.invoke("f", 1)).json() == 1
    before = threading.active_count()
    for number in range(30):
        assert (await host.invoke("f", number)).json() == number
    gc.collect()
    await host.until(lambda: threading.active_count() <= before + 2)
    assert len(list(host.host.runtime._environments)) <= 3
