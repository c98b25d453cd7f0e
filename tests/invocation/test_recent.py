"""The newest lines of the functions' log, kept in memory: bounded, per function, and followed."""

from __future__ import annotations

import asyncio
import json
import os
import time

from serverfull.config import LoggingSettings
from serverfull.interfaces import LogRecord
from serverfull.invocation.recent import RecentLog
from serverfull.invocation.sinks import JsonLines, StreamSink, as_console
from serverfull.observability.logger import HostLogger


def piece(*texts: str, function: str = "hello", at: float = 1_700_000_000.0) -> str:
    render = JsonLines()
    return "".join(render(LogRecord(function, "request-1", "function", text, at)) for text in texts)


def messages(lines: list[str]) -> list[str]:
    return [json.loads(line)["message"] for line in lines]


def test_lines_come_back_in_order_and_those_of_other_functions_do_not() -> None:
    recent = RecentLog()
    recent.add(piece("one") + piece("other", function="hello2") + piece("two"))
    recent.add(piece("three"))
    assert messages(recent.lines("hello")[0]) == ["one", "two", "three"]
    assert messages(recent.lines("hello2")[0]) == ["other"]
    assert recent.lines("nobody")[0] == []


def test_no_text_of_a_function_gets_into_the_log_of_another() -> None:
    recent = RecentLog()
    genuine = piece("genuine", function="victim")
    recent.add(piece(genuine, '"function":"victim","requestId":', "a\u2028b\x85c\rd"))
    assert recent.lines("victim")[0] == []
    assert messages(recent.lines("hello")[0])[2] == "a\u2028b\x85c\rd"


def test_lines_before_a_time_are_left_out() -> None:
    recent = RecentLog()
    recent.add(piece("old", at=1_700_000_000.0) + piece("new", at=1_700_000_010.5))
    assert messages(recent.lines("hello", since=1_700_000_010.0)[0]) == ["new"]


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    recent = RecentLog(most=1000)
    for number in range(100):
        recent.add(piece(str(number)))
    kept = messages(recent.lines("hello")[0])
    assert kept[-1] == "99"
    assert 1 < len(kept) < 10
    assert recent._held <= 1000


async def test_followers_get_what_comes_and_are_told_what_they_missed() -> None:
    recent = RecentLog(most=500)
    recent.add(piece("before"))
    _, position = recent.lines("hello")
    following = recent.following("hello", position, tick=0.01)
    assert await anext(following) == []
    await asyncio.to_thread(recent.add, piece("first"))
    got = [await anext(following)]
    while not got[-1]:
        got.append(await anext(following))
    assert messages(got[-1]) == ["first"]
    for number in range(20):
        recent.add(piece(str(number)))
    missed = messages(await anext(following))
    assert (missed[0], missed[-1]) == ("[lines that came too fast are missing here]", "19")
    assert await anext(following) == []
    await following.aclose()
    assert not recent._wake_ups


async def test_a_follower_is_woken_and_does_not_wait_for_its_tick() -> None:
    recent = RecentLog()
    following = recent.following("hello", 0, tick=3600)
    assert await anext(following) == []
    asyncio.get_running_loop().call_later(0.01, lambda: recent.add(piece("now")))
    async with asyncio.timeout(10):
        assert messages(await anext(following)) == ["now"]
    await following.aclose()


async def test_a_sink_keeps_what_it_writes_as_json_whatever_it_shows() -> None:
    for render in (as_console, JsonLines()):
        reader, writer = os.pipe()
        recent = RecentLog()
        sink = StreamSink(writer, render, HostLogger(LoggingSettings(output="NULL")), recent=recent)
        sink.start()
        sink.write(LogRecord("hello", "request-1", "function", "a\nb\n", time.time()))
        await sink.written(within=10)
        assert messages(recent.lines("hello")[0]) == ["a\nb"]
        sink.close()
        os.close(writer)
        os.close(reader)


async def test_waiting_for_a_reader_that_does_not_read_ends() -> None:
    reader, writer = os.pipe()
    sink = StreamSink(writer, lambda record: record.text, HostLogger(LoggingSettings(output="NULL")))
    sink.start()
    for _ in range(3):
        sink.write(LogRecord("hello", "request-1", "function", "x" * 1_000_000, time.time()))
    await sink.written(within=0.05)
    os.close(reader)
    sink.close()
    os.close(writer)
