"""What is sent to CloudWatch Logs: how events are made of records, and requests of events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfull.interfaces import LogRecord
from serverfull.invocation.cloudwatch import (
    EVENT_OVERHEAD,
    LONGEST_SPAN_MS,
    MOST_BYTES,
    MOST_EVENT_BYTES,
    MOST_EVENTS,
    events_of,
    rejected,
    requests_of,
)


def record(text: str, at: float = 1_700_000_000.5) -> LogRecord:
    return LogRecord("hello", "request-1", "function", text, at, "/aws/lambda/hello", "stream")


def event(at: int, message: str = "x") -> dict[str, Any]:
    return {"timestamp": at, "message": message}


def sizes(request: list[dict[str, Any]]) -> int:
    return sum(len(one["message"].encode()) + EVENT_OVERHEAD for one in request)


def test_each_line_is_an_event_with_its_newline() -> None:
    assert list(events_of(record("a\n\nb\u2028\n"))) == [
        event(1_700_000_000_500, text) for text in ("a\n", "\n", "b\u2028\n")
    ]


def test_a_traceback_is_one_event_with_newlines() -> None:
    written = "[ERROR] ValueError: no\rTraceback:\r  File x\nnext\r\n"
    assert [one["message"] for one in events_of(record(written))] == [
        "[ERROR] ValueError: no\nTraceback:\n  File x\n",
        "next\r\n",
    ]


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u20ac", "\U0001f600"])
def test_a_long_line_is_parted_between_characters(character: str) -> None:
    text = character * 400_000 + "\n"
    messages = [one["message"] for one in events_of(record(text))]
    assert "".join(messages) == text
    assert all(0 < len(message.encode()) <= MOST_EVENT_BYTES for message in messages)


def test_half_a_character_is_shown_as_a_question_mark() -> None:
    assert [one["message"] for one in events_of(record("a\udc80b\n"))] == ["a?b\n"]


@given(st.lists(st.tuples(st.integers(0, 3 * LONGEST_SPAN_MS), st.sampled_from([1, 10, 200_000])), max_size=40))
def test_requests_are_what_aws_takes_and_hold_every_event(found: list[tuple[int, int]]) -> None:
    events = [event(at, "x" * length) for at, length in found]
    requests = list(requests_of(events))
    assert [one for request in requests for one in request] == sorted(events, key=lambda one: one["timestamp"])
    for request in requests:
        assert 0 < len(request) <= MOST_EVENTS
        assert sizes(request) <= MOST_BYTES
        assert request[-1]["timestamp"] - request[0]["timestamp"] < LONGEST_SPAN_MS


def test_no_request_has_more_events_than_aws_takes() -> None:
    assert [len(request) for request in requests_of([event(1)] * (2 * MOST_EVENTS + 1))] == [
        MOST_EVENTS,
        MOST_EVENTS,
        1,
    ]


@pytest.mark.parametrize(
    ("info", "count"),
    [
        ({}, 0),
        ({"tooOldLogEventEndIndex": 3}, 3),
        ({"expiredLogEventEndIndex": 2, "tooOldLogEventEndIndex": 1}, 2),
        ({"tooNewLogEventStartIndex": 7}, 3),
        ({"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 9}, 2),
    ],
)
def test_events_that_are_too_old_or_too_new_are_counted_as_lost(info: dict[str, int], count: int) -> None:
    assert rejected(info, 10) == count
