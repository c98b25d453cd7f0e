"""Where the functions' log goes: batches, back-pressure, and lines that nothing can forge."""

from __future__ import annotations

import fcntl
import io
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.config import LoggingSettings
from serverfull.interfaces import LogRecord
from serverfull.invocation.sinks import JsonLines, NullSink, StreamSink, as_console
from serverfull.observability.logger import HostLogger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORGED = (
    "START RequestId: 1 Version: $LATEST\nEND RequestId: 1\r\nREPORT RequestId: 1\tDuration: 1 ms\n"
    '"}\n{"time":"x","type":"platform","message":"END"}\n'
    "\x1b[2K\x1b[1A\rother | END\x85next\u2028line\x00\x9b2J\udc80"
)


class HostLog:
    """The host's own log, and what is in it."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.logger = HostLogger(LoggingSettings(format="json"), stream=self._stream)

    @property
    def lines(self) -> list[dict[str, Any]]:
        self.logger.flush(10)
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def plain(record: LogRecord) -> str:
    return record.text


def record(text: str, kind: str = "function") -> LogRecord:
    return LogRecord("hello", "request-1", kind, text, 1_700_000_000.5)


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def read_while_closing(sink: StreamSink, reader: int, writer: int) -> bytes:
    """Close a sink that has more to write than its pipe holds, and give what comes out of that."""
    kept: list[bytes] = []
    thread = threading.Thread(target=lambda: kept.append(read_all(reader)))
    thread.start()
    sink.close()
    os.close(writer)
    thread.join()
    return kept[0]


def test_everything_written_before_close_comes_out_in_order() -> None:
    for _ in range(30):
        reader, writer = os.pipe()
        sink = StreamSink(writer, plain, HostLog().logger)
        sink.start()
        for number in range(50):
            sink.write(record(f"{number}\n"))
        sink.close()
        sink.close()
        os.close(writer)
        assert read_all(reader).split() == [str(number).encode() for number in range(50)]


def test_a_reader_that_does_not_read_makes_nobody_wait_and_memory_is_bounded() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer, plain, HostLog().logger, backlog=100)
    sink.start()
    for _ in range(2000):  # far more than a pipe and the backlog hold
        sink.write(record("x" * 10_000 + "\n"))
    assert sink.dropped > 1000
    assert len(sink._records) <= 100
    kept = read_while_closing(sink, reader, writer)
    assert kept.count(b"\n") == 2000 - sink.dropped


def test_large_records_are_bounded_by_their_size_too() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer, plain, HostLog().logger)
    sink.start()
    for _ in range(200):
        sink.write(record("x" * 1_000_000 + "\n"))
    held = sum(len(one.text) for one in list(sink._records))
    assert held <= 70_000_000
    assert sink.dropped > 100
    os.close(reader)
    sink.close()
    os.close(writer)


def test_a_closed_pipe_ends_nothing() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer, plain, HostLog().logger)
    sink.start()
    os.close(reader)
    sink.write(record("x\n"))
    sink.close()
    assert sink.dropped
    os.close(writer)


def test_the_hosts_log_says_once_that_nothing_can_be_written_until_it_can_again(tmp_path: Path) -> None:
    log = HostLog()
    reader, writer = os.pipe()
    sink = StreamSink(writer, plain, log.logger)
    os.close(reader)
    assert [sink._write_batch([record("x\n")]) for _ in range(3)] == [1, 1, 1]
    works = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    broken = os.dup(writer)
    os.dup2(works, writer)
    assert sink._write_batch([record("y\n")]) == 0
    os.dup2(broken, writer)
    assert sink._write_batch([record("z\n")]) == 1
    for descriptor in (writer, works, broken):
        os.close(descriptor)
    assert [(line["level"], line["event"]) for line in log.lines] == [
        ("error", "log of functions cannot be written")
    ] * 2
    assert "Broken pipe" in log.lines[0]["reason"]
    assert (tmp_path / "log").read_text() == "y\n"


def test_the_hosts_log_says_how_much_a_reader_that_was_too_slow_did_not_get() -> None:
    log = HostLog()
    reader, writer = os.pipe()
    sink = StreamSink(writer, plain, log.logger, backlog=100)
    sink.start()
    for _ in range(2000):
        sink.write(record("x" * 10_000 + "\n"))
    assert log.lines == []  # the thread that could say so waits for the reader
    kept = read_while_closing(sink, reader, writer)
    (line,) = log.lines
    assert (line["level"], line["event"]) == ("warning", "log of functions was dropped")
    assert line["records"] == sink.dropped == 2000 - kept.count(b"\n")


def test_the_hosts_log_says_at_the_end_what_a_reader_that_never_came_back_did_not_get() -> None:
    log = HostLog()
    reader, writer = os.pipe()
    sink = StreamSink(writer, plain, log.logger, backlog=100)
    sink.start()
    for _ in range(2000):
        sink.write(record("x" * 10_000 + "\n"))
    sink.close(within=0.01)
    assert [line["records"] for line in log.lines] == [sink.dropped]
    os.close(reader)
    sink.close()
    os.close(writer)


def test_a_pipe_that_others_have_made_non_blocking_gets_every_line_whole() -> None:
    log = HostLog()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    sink = StreamSink(writer, plain, log.logger)
    sink.start()
    line = "x" * 9_999 + "\n"
    for _ in range(200):  # more than a pipe holds
        sink.write(record(line))
    kept = read_while_closing(sink, reader, writer)
    assert kept == line.encode() * 200
    assert (sink.dropped, log.lines) == (0, [])


def test_a_sink_that_keeps_nothing_takes_everything() -> None:
    NullSink().write(record("x"))


@pytest.mark.parametrize("render", [as_console, JsonLines()], ids=["console", "json"])
def test_no_text_of_a_function_can_pass_for_a_line_of_the_host(render: Callable[[LogRecord], str]) -> None:
    own = "START RequestId: 1 Version: $LATEST\n"
    genuine = render(record(own, "platform"))
    assert genuine.endswith("\n")
    assert genuine not in render(record(own))
    forged = render(record(FORGED + "\n" + own + genuine))
    genuine_lines = set(genuine.splitlines())
    assert not genuine_lines & set(forged.split("\n"))


def test_console_output_has_no_control_characters_and_a_mark_on_each_line() -> None:
    shown = as_console(record(FORGED))
    assert all(line.startswith("hello | ") for line in shown.split("\n")[:-1])
    assert not {c for c in shown if c != "\n" and c != "\t" and (ord(c) < 32 or 127 <= ord(c) < 160)}
    assert "\\x1b[2K" in shown


def test_a_traceback_is_shown_with_its_lines_although_runtimes_write_it_as_one() -> None:
    shown = as_console(record("[ERROR] ValueError: no\rTraceback:\r  File x\r\nnext\n"))
    assert shown == "".join(
        f"hello | {line}\n" for line in ("[ERROR] ValueError: no", "Traceback:", "  File x", "next")
    )


def test_json_output_is_one_object_for_each_record_with_the_text_unchanged() -> None:
    shown = JsonLines()(record(FORGED + "\n"))
    assert shown.count("\n") == 1
    document = json.loads(shown)
    assert document == {
        "time": "2023-11-14T22:13:20.500Z",
        "type": "function",
        "function": "hello",
        "requestId": "request-1",
        "message": FORGED,
    }


@pytest.mark.parametrize(
    "text", ["plain", "tab\there", "a\nb", 'quo"te', "back\\slash", "uml\u00e4ut", "\x7f\x1b", "\u202e", ""]
)
def test_json_output_gives_back_every_text(text: str) -> None:
    assert json.loads(JsonLines()(record(text + "\n")))["message"] == text
