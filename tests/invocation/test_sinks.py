"""Where the functions' log goes: batches, back-pressure, and lines that nothing can forge."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from serverfull.interfaces import LogRecord
from serverfull.invocation.sinks import JsonLines, NullSink, StreamSink, as_console

if TYPE_CHECKING:
    from collections.abc import Callable

FORGED = (
    "START RequestId: 1 Version: $LATEST\nEND RequestId: 1\r\nREPORT RequestId: 1\tDuration: 1 ms\n"
    '"}\n{"time":"x","type":"platform","message":"END"}\n'
    "\x1b[2K\x1b[1A\rother | END\x85next\u2028line\x00\x9b2J\udc80"
)


def record(text: str, kind: str = "function") -> LogRecord:
    return LogRecord("hello", "request-1", kind, text, 1_700_000_000.5)


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


def test_everything_written_before_close_comes_out_in_order() -> None:
    for _ in range(30):
        reader, writer = os.pipe()
        sink = StreamSink(writer, lambda record: record.text)
        sink.start()
        for number in range(50):
            sink.write(record(f"{number}\n"))
        sink.close()
        sink.close()
        os.close(writer)
        assert read_all(reader).split() == [str(number).encode() for number in range(50)]


def test_a_reader_that_does_not_read_makes_nobody_wait_and_memory_is_bounded() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer, lambda record: record.text, backlog=100)
    sink.start()
    for _ in range(2000):  # far more than a pipe and the backlog hold
        sink.write(record("x" * 10_000 + "\n"))
    assert sink.dropped > 1000
    assert len(sink._records) <= 100
    kept: list[bytes] = []
    thread = threading.Thread(target=lambda: kept.append(read_all(reader)))
    thread.start()
    sink.close()
    os.close(writer)
    thread.join()
    assert kept[0].count(b"\n") == 2000 - sink.dropped


def test_large_records_are_bounded_by_their_size_too() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer, lambda record: record.text)
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
    sink = StreamSink(writer, lambda record: record.text)
    sink.start()
    os.close(reader)
    sink.write(record("x\n"))
    sink.close()
    assert sink.dropped
    os.close(writer)


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
