"""The log of one invocation: START, END and REPORT, budgets, tails and many threads at once."""

from __future__ import annotations

import json
import re
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from serverfull import Function
from serverfull.domain.timestamps import timestamp
from serverfull.interfaces import LogRecord, LogSink
from serverfull.invocation.invoker import identify
from serverfull.invocation.logs import InvocationLog, MemoryFigure

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
TRACE = "Root=1-5e34a614-10bdxmplf1fb44f07bc535a1;Parent=07f7e4d1xmpl7fca;Sampled=1"


class Sink(LogSink):
    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    def write(self, record: LogRecord) -> None:
        self.records.append(record)

    def text(self, kind: str | None = None) -> str:
        return "".join(record.text for record in self.records if kind in (None, record.kind))


def make(sink: Sink, *, budget: int = 1_000_000, tail: bool = True, **options: Any) -> InvocationLog:
    identity = identify("hello", Function(print, **options), 3, 128)
    return InvocationLog(identity, REQUEST, sink, budget, tail=tail)


def finish(
    log: InvocationLog,
    status: str = "success",
    trace: str | None = None,
    init: float | None = None,
    ended_by: str = "",
) -> str:
    tail = log.finish(0.01234, status, trace, 47, init, ended_by)
    assert tail is not None
    assert len(tail) <= 4096
    return tail.decode("utf-8")


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_the_lines_of_a_text_log_are_those_of_aws() -> None:
    sink = Sink()
    log = make(sink)
    log.write("one\ntw")
    log.write("o\n")
    expected = (
        f"START RequestId: {REQUEST} Version: $LATEST\n"
        "one\ntwo\n"
        f"END RequestId: {REQUEST}\n"
        f"REPORT RequestId: {REQUEST}\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 47 MB\t\n"
        "XRAY TraceId: 1-5e34a614-10bdxmplf1fb44f07bc535a1\tSampled: true\n"
    )
    assert finish(log, trace=TRACE) == expected
    assert sink.text() == expected
    assert sink.text("function") == "one\ntwo\n"


def test_what_is_written_in_no_invocation_has_no_start_line() -> None:
    sink = Sink()
    log = InvocationLog(identify("hello", Function(print), 3, 128), "", sink, 1000, tail=False)
    log.write("No snapshot is made.\n")
    assert sink.text() == "No snapshot is made.\n"


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_a_timeout_has_a_line_of_its_own_whatever_the_handler_has_written(log_format: Any) -> None:
    sink = Sink()
    log = make(sink, budget=20, log_format=log_format, timeout=1.5)
    log.write("much\n" * 3 + "and no end of it")
    told = finish(log, "timeout")
    at = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.search(rf"^{at} {REQUEST} Task timed out after 1\.50 seconds\n\n", told, re.MULTILINE)
    assert sink.text("function") == "much\n" * 3 + "and n\n"


def test_a_timeout_is_told_in_the_report() -> None:
    assert "\tStatus: timeout\t\n" in finish(make(Sink()), "timeout")


def test_what_ended_an_environment_is_told_in_the_report() -> None:
    text = finish(make(Sink()), "error", init=0.1204, ended_by="Runtime.ExitError")
    assert text.endswith("\tInit Duration: 120.40 ms\tStatus: error\tError Type: Runtime.ExitError\t\n")
    assert "Status" not in finish(make(Sink()), "error")
    ended = finish(make(Sink(), log_format="JSON"), "error", ended_by="Runtime.ExitError")
    records = [json.loads(line) for line in ended.splitlines()]
    assert [record["type"] for record in records] == ["platform.start", "platform.runtimeDone", "platform.report"]
    told = [(record["record"]["status"], record["record"]["errorType"]) for record in records[1:]]
    assert told == [("error", "Runtime.ExitError")] * 2


def test_the_initialisation_of_an_environment_is_told_in_the_report_and_billed() -> None:
    text = finish(make(Sink()), init=0.1204)
    assert "\tDuration: 12.34 ms\tBilled Duration: 133 ms\t" in text
    assert text.endswith("\tMax Memory Used: 47 MB\tInit Duration: 120.40 ms\t\n")
    record = json.loads(finish(make(Sink(), log_format="JSON"), init=0.1204).splitlines()[-1])["record"]
    assert record["metrics"] == {
        "durationMs": 12.34,
        "billedDurationMs": 133,
        "memorySizeMB": 128,
        "maxMemoryUsedMB": 47,
        "initDurationMs": 120.4,
    }


def types(text: str) -> list[str]:
    return [json.loads(line)["type"] for line in text.splitlines() if '"type":"platform.' in line]


@pytest.mark.parametrize(
    ("level", "status", "seen"),
    [
        (None, "success", ["platform.start", "platform.report"]),
        ("INFO", "error", ["platform.start", "platform.runtimeDone", "platform.report"]),
        ("DEBUG", "success", ["platform.start", "platform.runtimeDone", "platform.report"]),
        ("WARN", "success", []),
        ("WARN", "timeout", ["platform.runtimeDone", "platform.report"]),
    ],
)
def test_the_system_log_level_says_which_lines_of_the_host_are_kept(level: Any, status: str, seen: list[str]) -> None:
    sink = Sink()
    log = make(sink, log_format="JSON", system_log_level=level)
    log.write("a line\n")
    tail = finish(log, status)
    assert types(tail) == types(sink.text()) == seen
    assert "a line\n" in tail


@pytest.mark.parametrize(
    ("level", "how", "status", "seen"),
    [
        ("DEBUG", "on-demand", "success", ["platform.initStart", "platform.initRuntimeDone", "platform.initReport"]),
        ("INFO", "on-demand", "success", []),
        ("INFO", "provisioned-concurrency", "success", ["platform.initReport"]),
        ("WARN", "provisioned-concurrency", "success", []),
        ("WARN", "on-demand", "error", ["platform.initRuntimeDone", "platform.initReport"]),
        ("INFO", "on-demand", "timeout", ["platform.initRuntimeDone", "platform.initReport"]),
    ],
)
def test_the_system_log_level_says_which_records_of_loading_code_are_kept(
    level: Any, how: str, status: str, seen: list[str]
) -> None:
    sink = Sink()
    log = make(sink, log_format="JSON", system_log_level=level)
    log.initialising(how, 1_700_000_000.5)
    log.write("loading")
    log.initialised(0.25, status, "Runtime.ExitError" if status == "error" else "")
    records = [json.loads(line) for line in sink.text("platform").splitlines()]
    assert [record["type"] for record in records] == seen
    assert ": " not in sink.text("platform")
    if "platform.initReport" in seen:
        record = records[-1]["record"]
        assert record.pop("errorType", None) == ("Runtime.ExitError" if status == "error" else None)
        expected = {"initializationType": how, "phase": "init", "status": status, "metrics": {"durationMs": 250.0}}
        assert record == expected
    log.write("running\n")
    lines = finish(log).splitlines()
    assert lines.index("loading") < lines.index("running")
    started = [number for number, line in enumerate(lines) if "platform.start" in line]
    assert not started or lines.index("loading") < started[0] < lines.index("running")


def test_a_text_log_tells_of_loading_code_where_that_failed() -> None:
    sink = Sink()
    log = make(sink)
    log.initialising("on-demand", 1_700_000_000.5)
    log.write("first\n")
    log.initialised(10, "timeout")
    log.initialising("on-demand", 1_700_000_010.5)
    log.write("second\n")
    log.initialised(0.5, "error", "Runtime.ExitError")
    assert "\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 128 MB\t" in finish(log, init=10)
    assert sink.text().endswith("\tMax Memory Used: 47 MB\t\n")  # what was in vain has its own line
    assert sink.text().splitlines()[:-2] == [
        "first",
        "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout",
        "second",
        "INIT_REPORT Init Duration: 500.00 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.ExitError",
        f"START RequestId: {REQUEST} Version: $LATEST",
    ]


TIMED = '"timestamp":"2026-01-01T00:00:00Z"'


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("TRACE", "trace debug plain untimed warn error fatal"),
        ("DEBUG", "debug plain untimed warn error fatal"),
        (None, "plain untimed warn error fatal"),
        ("INFO", "plain untimed warn error fatal"),
        ("WARN", "warn error fatal"),
        ("ERROR", "error fatal"),
        ("FATAL", "fatal"),
    ],
)
def test_the_application_log_level_says_which_lines_of_the_function_are_kept(level: Any, lines: str) -> None:
    sink = Sink()
    log = make(sink, log_format="JSON", application_log_level=level)
    for name in ("trace", "debug"):
        log.write(f'{{"level":"{name}",{TIMED},"message":"{name}"}}\n')
    log.write('plain\n{"level":"debug","message":"untimed"}\n')
    for name in ("warn", "error"):
        log.write(f'{{"level":"{name.upper()}",{TIMED},"message":"{name}"}}\n')
    log.write(f'{{"level":"FATAL",{TIMED},"message":"fatal"}}')  # without an end
    tail = finish(log)
    found = [json.loads(line)["message"] if line[0] == "{" else line for line in sink.text("function").splitlines()]
    assert found == lines.split()
    assert sink.text("function") in tail if level is None else all(name in tail for name in lines.split())


@pytest.mark.parametrize("line", ["{", "[1]", '{"level": 3}', '{"level":"debug","time":5}', "{" * 50_000, "null"])
def test_a_line_that_only_looks_as_if_it_had_a_level_is_info(line: str) -> None:
    for level, there in (("INFO", True), ("WARN", False)):
        sink = Sink()
        log = make(sink, log_format="JSON", application_log_level=level)
        log.write(line + "\n")
        finish(log)
        assert (line in sink.text("function")) is there


def test_a_text_log_has_no_levels() -> None:
    sink = Sink()
    log = make(sink)
    log.write(f'{{"level":"DEBUG",{TIMED}}}\n')
    finish(log)
    assert "DEBUG" in sink.text("function")


def test_records_name_the_group_of_the_function_and_the_stream_of_the_environment() -> None:
    sink = Sink()
    log = make(sink, log_group="/shop/all")
    finish(log)
    log = make(sink)
    log.log_stream = "another"
    finish(log)
    ours, others = sink.records
    assert ours.log_group == "/shop/all"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", ours.log_stream)
    assert (others.log_group, others.log_stream) == ("/aws/lambda/hello", "another")


def test_a_silent_invocation_costs_one_record() -> None:
    sink = Sink()
    finish(make(sink))
    assert len(sink.records) == 1
    assert [line.split()[0] for line in sink.text().splitlines()] == ["START", "END", "REPORT"]


def test_the_lines_of_a_json_log_are_those_of_aws() -> None:
    sink = Sink()
    log = make(sink, log_format="JSON")
    log.write('{"message":"hi"}\n')
    finish(log)
    start, own, report = [json.loads(line) for line in sink.text().splitlines()]
    assert start["type"] == "platform.start"
    assert start["record"] == {"requestId": REQUEST, "version": "$LATEST"}
    assert own == {"message": "hi"}
    assert report["type"] == "platform.report"
    assert report["record"]["status"] == "success"
    assert report["record"]["metrics"] == {
        "durationMs": 12.34,
        "billedDurationMs": 13,
        "memorySizeMB": 128,
        "maxMemoryUsedMB": 47,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", report["time"])


def test_a_last_line_without_a_newline_gets_one_before_end() -> None:
    sink = Sink()
    log = make(sink)
    log.write("no newline")
    assert "no newline\nEND RequestId" in finish(log)


def test_what_is_over_the_budget_is_dropped_and_said() -> None:
    sink = Sink()
    log = make(sink, budget=100)
    for _ in range(50):
        log.write("0123456789")
    log.write("\nmore\n")
    tail = finish(log)
    assert log.dropped == 406
    assert sink.text("function") == "0123456789" * 10 + "\n"
    assert "[406 more characters of this invocation's log were dropped]\nEND" in tail


def test_a_line_without_an_end_is_passed_on_in_pieces_and_not_held_back() -> None:
    sink = Sink()
    log = make(sink, budget=10_000_000)
    for _ in range(100):
        log.write("x" * 10_000)
    assert len(sink.text("function")) > 900_000
    assert len(finish(log)) == 4096
    assert sink.text("function").count("x") == 1_000_000


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("character", ["é", "€", "😀", "\udc80"])
def test_a_tail_is_whole_characters_and_ends_with_the_report(character: str, shift: int) -> None:
    sink = Sink()
    log = make(sink)
    log.write("-" * shift + character * 5000 + "\n")
    tail = finish(log)
    assert tail.splitlines()[-1].startswith(f"REPORT RequestId: {REQUEST}")
    assert tail.isprintable() or set(tail) <= {"?", "-", character, *map(chr, range(127))}


def test_an_error_has_its_lines_in_the_tail_and_is_one_for_the_sinks() -> None:
    sink = Sink()
    log = make(sink)
    log.write("[ERROR] ValueError: no\rTraceback:\r  File x\nof windows\r\n")
    assert "\n[ERROR] ValueError: no\nTraceback:\n  File x\nof windows\r\nEND" in finish(log)
    assert sink.text("function") == "[ERROR] ValueError: no\rTraceback:\r  File x\nof windows\r\n"


def test_without_the_wish_there_is_no_tail() -> None:
    log = make(Sink(), tail=False)
    log.write("x\n")
    assert log.finish(0, "success", None, 1) is None


def test_text_of_a_thread_after_the_end_is_kept_and_starts_nothing_again() -> None:
    sink = Sink()
    log = make(sink)
    log.write("before\n")
    finish(log)
    log.write("after\n")
    assert sink.text().endswith("after\n")
    assert sink.text().count("START") == 1
    assert sink.records[-1].request_id == REQUEST


@pytest.mark.usefixtures("eager_switching")
def test_the_first_words_of_many_threads_are_all_kept() -> None:
    for _ in range(150):
        sink = Sink()
        log = make(sink)
        together = threading.Barrier(4)

        def work(number: int, log: InvocationLog = log, together: threading.Barrier = together) -> None:
            together.wait()
            log.write(f"{number}\n")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finish(log)
        assert sorted(sink.text("function").split()) == ["0", "1", "2", "3"]


@pytest.mark.usefixtures("eager_switching")
def test_lines_of_many_threads_are_all_kept_and_whole() -> None:
    sink = Sink()
    log = make(sink, budget=10_000_000)

    def work(number: int) -> None:
        for count in range(300):
            log.write(f"{number}:{count}\n")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(log)
    lines = sink.text("function").splitlines()
    assert sorted(lines) == sorted(f"{number}:{count}" for number in range(6) for count in range(300))


def test_the_end_does_not_wait_for_a_thread_that_was_stopped_while_it_passed_text_on() -> None:
    sink = Sink()
    log = make(sink)
    log.write("before\n")
    log._shared[0][0].acquire()  # what such a thread leaves
    log.write("stuck\n")
    tail = finish(log)
    assert "before\nstuck\nEND" in tail


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        ("Root=1-abc-def;Sampled=0", "XRAY TraceId: 1-abc-def\tSampled: false\n"),
        ("Root=1-abc\nREPORT;Sampled=0", ""),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_a_trace_header_adds_an_xray_line_where_it_is_one(trace: str, line: str) -> None:
    log = make(Sink())
    assert finish(log, trace=trace).endswith("\t\n" + line)


def test_the_memory_figure_is_looked_up_once_a_second() -> None:
    figure = MemoryFigure()
    first = figure.mb(10.0)
    assert first > 5
    assert figure.mb(10.5) == first


def test_a_timestamp_is_in_utc_with_milliseconds() -> None:
    assert timestamp(1_700_000_000.987) in ("2023-11-14T22:13:20.986Z", "2023-11-14T22:13:20.987Z")
