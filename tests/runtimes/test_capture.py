"""Whatever a handler prints or logs, wherever, belongs to its invocation and to no other."""

from __future__ import annotations

import _thread
import asyncio
import base64
import concurrent.futures
import contextlib
import io
import json
import logging
import os
import pickle
import re
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from serverfull import Function
from serverfull.runtimes.capture import CapturePatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serverfull.testing.fixtures import Serve


def log_with_a_handler_of_its_own(text: str) -> None:
    logger = logging.getLogger("test.own_handler")
    handler = logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        logger.warning("%s", text)
    finally:
        logger.removeHandler(handler)


def raise_and_print(text: str) -> None:
    try:
        raise LookupError(text)
    except LookupError:
        traceback.print_exc()


WAYS: dict[str, Callable[[str], Any]] = {
    "print": print,
    "print to stderr": lambda text: print(text, file=sys.stderr, flush=True),
    "stdout": lambda text: sys.stdout.write(text + "\n"),
    "stderr": lambda text: sys.stderr.writelines([text, "\n"]),
    "buffer": lambda text: sys.stdout.buffer.write(text.encode() + b"\n"),
    "error buffer": lambda text: sys.stderr.buffer.write(memoryview(text.encode() + b"\n")),
    "wrapped buffer": lambda text: io.TextIOWrapper(sys.stdout.buffer, write_through=True).write(text + "\n"),
    "root logger": lambda text: logging.getLogger().error("%s", text),
    "named logger": lambda text: logging.getLogger("a.b.c").critical("%s", text),
    "own handler": log_with_a_handler_of_its_own,
    "structlog": lambda text: structlog.get_logger().info(text),
    "traceback": raise_and_print,
}


@pytest.mark.parametrize("kind", ["sync", "async", "own"])
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
async def test_every_way_to_print_and_log_ends_up_in_the_tail(start_host: Any, kind: str, log_format: Any) -> None:
    def body(event: str) -> None:
        WAYS[event](f"<mark of {event}>")

    async def async_body(event: str) -> None:
        body(event)

    handler: Any = body if kind == "sync" else async_body
    host = await start_host({"f": Function(handler, loop="own" if kind == "own" else "host", log_format=log_format)})
    for way in WAYS:
        answer = await host.tail("f", way)
        assert answer.function_error is None, answer.body
        assert f"<mark of {way}>" in answer.tail(), way


POOL = ThreadPoolExecutor(4)


def in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


class Subclass(threading.Thread):
    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.work = work

    def run(self) -> None:
        self.work()


def in_subclass(work: Callable[[], None]) -> None:
    thread = Subclass(work)
    thread.start()
    thread.join()


def in_timer(work: Callable[[], None]) -> None:
    timer = threading.Timer(0.001, work)
    timer.start()
    timer.join()


def in_raw_thread(work: Callable[[], None]) -> None:
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    _thread.start_new_thread(run, ())
    assert done.wait(10)


def in_own_pool(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def in_asyncio(work: Callable[[], None]) -> None:
    async def main() -> None:
        async def task() -> None:
            work()

        await asyncio.gather(task(), asyncio.to_thread(task_in_thread))

    def task_in_thread() -> None:
        return None

    asyncio.run(main())


def in_asyncio_thread(work: Callable[[], None]) -> None:
    asyncio.run(asyncio.to_thread(work))


PLACES: dict[str, Callable[[Callable[[], None]], Any]] = {
    "handler": lambda work: work(),
    "thread": in_thread,
    "subclass": in_subclass,
    "timer": in_timer,
    "raw thread": in_raw_thread,
    "module pool": lambda work: POOL.submit(work).result(),
    "pool map": lambda work: list(POOL.map(lambda _: work(), [1])),
    "own pool": in_own_pool,
    "asyncio": in_asyncio,
    "asyncio thread": in_asyncio_thread,
    "thread in thread": lambda work: in_thread(lambda: in_thread(work)),
    "pool in thread": lambda work: in_thread(lambda: POOL.submit(work).result()),
    "thread in pool": lambda work: POOL.submit(in_thread, work).result(),
    "timer in asyncio": lambda work: in_asyncio(lambda: in_timer(work)),
}


async def test_threads_pools_and_tasks_belong_to_the_invocation_that_used_them(start_host: Any) -> None:
    """Many invocations at once, each through every place: every line is in its own log and in no other."""

    def handler(event: int) -> None:
        for place, run in PLACES.items():
            run(lambda place=place: print(f"call {event}: {place}"))

    host = await start_host({"f": Function(handler, timeout=60)})
    answers = await asyncio.gather(*[host.tail("f", number) for number in range(24)])
    for number, answer in enumerate(answers):
        lines = host.output.text_of(answer.request_id, "function").splitlines()
        assert lines == [f"call {number}: {place}" for place in PLACES]
        assert answer.tail().splitlines()[1:-2] == lines


async def test_tasks_of_async_handlers_on_one_loop_do_not_mix(start_host: Any) -> None:
    async def step(number: int, name: str) -> None:
        await asyncio.sleep(0)
        print(f"{number} {name}")

    async def handler(event: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            await asyncio.gather(*[step(event, "gather") for _ in range(3)])
            await loop.run_in_executor(None, print, f"{event} default executor")
            await loop.run_in_executor(POOL, print, f"{event} module pool")
            await asyncio.to_thread(in_thread, lambda: print(f"{event} thread in to_thread"))
            loop.call_soon(print, f"{event} call_soon")
            await asyncio.sleep(0)
            async with asyncio.TaskGroup() as group:
                group.create_task(step(event, "task group"))

    host = await start_host({"host": handler, "own": Function(handler, loop="own")})
    calls = [(name, number) for number in range(8) for name in ("host", "own")]
    answers = await asyncio.gather(*[host.tail(name, number) for name, number in calls])
    for (_, number), answer in zip(calls, answers, strict=True):
        lines = host.output.text_of(answer.request_id, "function").splitlines()
        assert len(lines) == 5 * 8
        assert all(line.startswith(f"{number} ") for line in lines)


async def test_a_thread_that_prints_after_its_invocation_is_not_in_the_next_ones_tail(start_host: Any) -> None:
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(20)
        print("late words")
        done.set()

    def handler(event: str) -> None:
        if event == "first":
            threading.Thread(target=late).start()
        else:
            go.set()
            done.wait(20)
            print("words of the second")

    host = await start_host({"f": handler})
    first = await host.tail("f", "first")
    second = await host.tail("f", "second")
    assert "late words" not in first.tail() + second.tail()
    assert "words of the second\n" in second.tail()
    assert host.output.text_of(first.request_id, "function") == "late words\n"


async def test_a_pool_thread_is_not_for_ever_its_first_users(start_host: Any) -> None:
    pool = ThreadPoolExecutor(1)
    outside: list[Any] = []

    def handler(event: int) -> None:
        pool.submit(print, f"in {event}").result()

    host = await start_host({"f": handler})
    first, second = await host.tail("f", 1), await host.tail("f", 2)
    assert "in 1\n" in first.tail()
    assert "in 2\n" in second.tail()
    assert "in 2" not in first.tail()
    from serverfull.runtimes.activity import current

    pool.submit(lambda: outside.append(current())).result()
    assert outside == [None]
    pool.shutdown()


async def test_partial_lines_and_bytes_that_are_no_text(start_host: Any) -> None:
    def handler(event: Any) -> None:
        sys.stdout.write("par")
        sys.stdout.write("tial\nno")
        sys.stderr.write(" end")
        sys.stdout.buffer.write(b"\n\xff\xfe\x00bytes\n")
        print("a", "b", sep="-", end="!\n")

    host = await start_host({"f": handler})
    answer = await host.tail("f")
    assert answer.tail().split("\n")[1:5] == ["partial", "no end", "\ufffd\ufffd\x00bytes", "a-b!"]


async def test_writing_what_is_no_text_fails_as_it_does_anywhere(start_host: Any) -> None:
    class Loud(str):
        __slots__ = ()

        def __len__(self) -> int:
            raise ZeroDivisionError

        def __radd__(self, other: object) -> str:
            raise ZeroDivisionError

    def handler(event: str) -> Any:
        return sys.stdout.write(b"bytes" if event == "bytes" else Loud("loud\n"))  # type: ignore[arg-type]

    host = await start_host({"f": handler})
    assert (await host.invoke("f", "bytes")).json()["errorType"] == "TypeError"
    answer = await host.tail("f", "loud")
    assert (answer.status, answer.function_error, answer.json()) == (200, None, 5)
    assert "loud\n" in answer.tail()


@pytest.mark.parametrize("line", ["x" * 999_999 + "\n", "x" * 1_000_000, "x\n"])
async def test_a_flood_is_bounded_by_a_budget_and_said(start_host: Any, line: str) -> None:
    times = max(1, 20_000_000 // len(line)) if len(line) > 10 else 100_000

    def handler(event: Any) -> None:
        for _ in range(times):
            sys.stdout.write(line)

    host = await start_host({"f": Function(handler, timeout=60)}, limits={"log_bytes": 50_000})
    answer = await host.tail("f")
    assert len(host.output.text_of(answer.request_id)) < 51_000
    dropped = times * len(line) - 50_000
    assert f"[{dropped} more characters of this invocation's log were dropped]" in answer.tail()
    assert "REPORT RequestId" in answer.tail()


async def test_a_handler_that_prints_until_its_timeout_is_answered(start_host: Any) -> None:
    stop = threading.Event()  # not needed, but a thread that prints on would spoil the tests after a failure

    def handler(event: Any) -> None:
        while not stop.is_set():
            print("again")

    host = await start_host({"f": Function(handler, timeout=0.1)})
    answer = await host.tail("f")
    assert answer.json()["errorType"] == "Sandbox.Timedout"
    assert "Status: timeout" in answer.tail()
    environment = host.host.invoker._units["f"].environment
    try:
        await host.until(lambda: not environment.lost)
    finally:
        stop.set()


TAIL = re.compile(
    r"START RequestId: (?P<id>[0-9a-f-]{36}) Version: \$LATEST\n"
    r"(?P<own>.*)"
    r"END RequestId: (?P=id)\n"
    r"REPORT RequestId: (?P=id)\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\t"
    r"Max Memory Used: \d+ MB\t\n",
    re.DOTALL,
)


async def test_the_tail_is_the_last_4_kb_in_the_form_of_aws(start_host: Any) -> None:
    host = await start_host({"f": lambda event: print("ä" * event)})
    short = await host.tail("f", 3)
    match = TAIL.fullmatch(short.tail())
    assert match is not None
    assert match["own"] == "äää\n"
    assert match["id"] == short.request_id
    for extra in range(2):
        long = await host.tail("f", 5000 + extra)
        assert 4090 <= len(long.tail_bytes()) <= 4096
        assert long.tail().endswith(" MB\t\n")
    assert "x-amz-log-result" not in (await host.invoke("f", 3)).headers
    assert "x-amz-log-result" not in (await host.invoke("f", 3, Log_Type="None")).headers


async def test_text_log_records_have_aws_form(start_host: Any) -> None:
    def handler(event: Any) -> None:
        logging.getLogger().warning("value %d", 7)
        try:
            raise LookupError("gone")
        except LookupError:
            logging.getLogger("x").exception("failed")

    host = await start_host({"f": handler})
    answer = await host.tail("f")
    lines = answer.tail().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"\[WARNING\]\t{stamp}\t{answer.request_id}\tvalue 7", lines[1])
    assert re.fullmatch(rf"\[ERROR\]\t{stamp}\t{answer.request_id}\tfailed", lines[2])
    assert lines[3] == "Traceback (most recent call last):"
    assert lines[-3] == "LookupError: gone"


async def test_json_log_records_have_aws_form(start_host: Any) -> None:
    def handler(event: Any) -> None:
        logging.getLogger("shop").warning("value %d", 7, extra={"order": 5, "odd": {1, 2} - {2}})
        logging.getLogger().error({"message as": "object"})
        try:
            raise LookupError("gone")
        except LookupError:
            logging.getLogger("x").exception("failed")
        print("not json")

    host = await start_host({"f": Function(handler, log_format="JSON")})
    answer = await host.tail("f")
    start, first, second, third, printed, report = answer.tail().splitlines()
    assert json.loads(start)["type"] == "platform.start"
    document = json.loads(first)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", document.pop("timestamp"))
    assert document == {
        "level": "WARNING",
        "message": "value 7",
        "logger": "shop",
        "requestId": answer.request_id,
        "order": 5,
        "odd": "{1}",
    }
    assert json.loads(second)["message"] == {"message as": "object"}
    failed = json.loads(third)
    assert (failed["errorType"], failed["errorMessage"]) == ("LookupError", "gone")
    assert "raise LookupError" in failed["stackTrace"][0]
    assert printed == "not json"
    assert json.loads(report)["record"]["requestId"] == answer.request_id


def test_warnings_broken_log_calls_and_structlog_without_a_test_runner_in_between(serve: Serve) -> None:
    host = serve("""
import logging, sys, threading, warnings
import structlog
from sys import stdout

early = logging.getLogger("early")
early.addHandler(logging.StreamHandler(sys.stderr))
log = structlog.get_logger()
bound = log.bind(bound="yes")
print("of the import")

def handler(event):
    warnings.warn("a warning")
    logging.getLogger().error("%d", "no number")
    early.error("from early")
    log.info("by structlog")
    bound.info("by bound structlog")
    stdout.write("by imported name\\n")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    sys.exit("the end")

functions = {"f": handler}
""")
    answer = host.invoke("f", headers={"X-Amz-Log-Type": "Tail"})
    assert answer.json()["errorType"] == "Runtime.ExitError"
    tail = base64.b64decode(answer.headers["x-amz-log-result"]).decode()
    assert host.stop() == 0
    assert "of the import" in host.stdout_lines()
    text = "\n".join(json.loads(line)["message"] for line in host.stdout_lines() if line.startswith("{"))
    for expected in (
        "UserWarning: a warning",
        "--- Logging error ---",
        "from early",
        "by structlog",
        "bound structlog",
    ):
        assert expected in text
    for expected in ("by imported name", "ZeroDivisionError", "the end\n"):
        assert expected in text
        assert expected in tail
    assert not any("a warning" in line or "from early" in line for line in host.stderr_lines())


async def test_log_handlers_from_before_the_host_are_routed_and_given_back(start_host: Any) -> None:
    early = logging.getLogger("test.early")
    handler = logging.StreamHandler(sys.stderr)
    early.addHandler(handler)
    early.propagate = False
    before = handler.stream
    try:
        host = await start_host({"f": lambda: early.error("from an early handler")})
        assert handler.stream is sys.stderr
        assert handler.stream is not before
        assert "from an early handler\n" in (await host.tail("f")).tail()
        await host.close()
        assert handler.stream is before
    finally:
        early.removeHandler(handler)


async def test_outside_of_invocations_output_goes_to_the_real_streams(
    start_host: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    host = await start_host({"f": lambda: print("of the function")})
    print("of the host")
    print("error of the host", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes of the host\n")
    logging.getLogger("host.library").warning("careful")
    logging.getLogger("host.library").info("not shown")
    await host.invoke("f")
    sys.stdout.flush()
    shown = capsys.readouterr()
    assert shown.out == "of the host\nbytes of the host\n"
    assert "error of the host\n" in shown.err
    assert "careful" in shown.err
    assert "not shown" not in shown.err


async def test_inside_a_handler_the_streams_look_like_streams(start_host: Any) -> None:
    def handler(event: Any) -> Any:
        sys.stdout.close()
        sys.stdout.flush()
        with sys.stdout as stream:
            print("within", file=stream)
        return [
            sys.stdout.isatty(),
            sys.stdout.writable(),
            sys.stdout.buffer.writable(),
            sys.stdout.encoding.lower(),
            sys.stdout.closed,
        ]

    host = await start_host({"f": handler})
    answer = await host.tail("f")
    assert answer.json() == [False, True, True, "utf-8", False]
    assert "within\n" in answer.tail()
    print("and the host's still works")


async def test_a_stream_that_a_handler_replaced_and_left_is_replaced_for_its_invocation_alone(
    start_host: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaves(event: Any) -> Any:
        sys.stdout = kept = io.StringIO()
        sys.stderr = None
        print("kept")
        print("to nowhere", file=sys.__dict__["stderr"], flush=True)
        thread = threading.Thread(target=print, args=("of its thread",))
        thread.start()
        thread.join()
        return [kept.getvalue(), sys.stdout is kept, sys.stderr]

    host = await start_host({"leaves": leaves, "prints": lambda: print("seen")})
    assert (await host.invoke("leaves")).json() == ["kept\nof its thread\n", True, None]
    assert "seen\n" in (await host.tail("prints")).tail()
    print("of the host")
    assert capsys.readouterr().out == "of the host\n"


@pytest.mark.parametrize("own", [False, True])
async def test_a_redirected_stream_gets_what_its_own_invocation_prints_and_nothing_else(
    start_host: Any, own: bool
) -> None:
    redirected, printed = threading.Event(), threading.Event()

    def redirects(event: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            redirected.set()
            assert printed.wait(20)
            print("mine")
        print("after")
        return text.getvalue()

    async def prints(event: Any) -> None:
        await asyncio.to_thread(redirected.wait, 20)
        print("theirs")
        printed.set()

    host = await start_host({"redirects": redirects, "prints": Function(prints, loop="own" if own else "host")})
    one, other = await asyncio.gather(host.tail("redirects"), host.tail("prints"))
    assert one.json() == "mine\n"
    assert "after\n" in one.tail()
    assert "mine" not in one.tail()
    assert "theirs\n" in other.tail()


async def test_a_stream_put_around_the_one_that_was_there_writes_to_the_log(start_host: Any) -> None:
    class Shouting(io.TextIOBase):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def write(self, text: str) -> None:  # type: ignore[override]
            self.inner.write(text.upper())

    def handler(event: Any) -> Any:
        plain = sys.stdout
        sys.stdout = Shouting(plain)
        print("loud", flush=True)
        del sys.stdout
        print("quiet")
        return sys.stdout is plain

    answer = await (await start_host({"f": handler})).tail("f")
    assert answer.json() is True
    assert "LOUD\nquiet\n" in answer.tail()


async def test_the_module_sys_is_still_pickled_by_reference(start_host: Any) -> None:
    await start_host({"f": print})
    assert pickle.loads(pickle.dumps(sys)) is sys


def process_state() -> tuple[Any, ...]:
    return (
        sys.stdout,
        sys.stderr,
        type(sys),
        threading.Thread.start,
        _thread.start_new_thread,
        concurrent.futures.ThreadPoolExecutor.submit,
        type(os.environ),
        tuple(logging.getLogger().handlers),
    )


@pytest.fixture
def unchanged() -> Iterator[None]:
    before = process_state()
    yield
    assert process_state() == before


@pytest.mark.usefixtures("unchanged")
async def test_everything_is_as_before_when_the_host_has_ended(start_host: Any) -> None:
    before = process_state()
    host = await start_host({"f": lambda: print("x")})
    assert all(now is not then for now, then in zip(process_state(), before, strict=True))
    await host.invoke("f")
    await host.close()
    assert process_state() == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_hosts_in_one_process_share_the_patches_until_the_last_ends(
    start_host: Any, order: tuple[int, int]
) -> None:
    before = process_state()
    hosts = [await start_host({"f": lambda: print("one")}), await start_host({"f": lambda: print("two")})]
    texts = ["one\n", "two\n"]
    for host, text in zip(hosts, texts, strict=True):
        assert text in (await host.tail("f")).tail()
    await hosts[order[0]].close()
    assert texts[order[1]] in (await hosts[order[1]].tail("f")).tail()
    assert sys.stdout is not before[0]
    await hosts[order[1]].close()
    assert process_state() == before


def test_a_stream_that_somebody_else_has_put_in_place_stays(capsys: pytest.CaptureFixture[str]) -> None:
    CapturePatch.install()
    routed, theirs = sys.stdout, io.StringIO()
    sys.stdout = theirs
    CapturePatch.uninstall()
    found, sys.stdout = sys.stdout, routed._real  # type: ignore[attr-defined]
    assert found is theirs
