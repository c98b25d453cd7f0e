"""What follows from how an attempt to run an event has ended."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from serverfull.domain.events import (
    Again,
    Attempt,
    EventConfig,
    EventEnd,
    Failed,
    Held,
    QueuedEvent,
    Refused,
    Response,
    Succeeded,
    after,
    before,
    throttle_delay,
)

EVENT = QueuedEvent(request_id="r", account="000000000000", region="us-east-1", name="f", accepted_at=1000.0)
RESULT = Response(status_code=200, executed_version="$LATEST", payload=b"1")
ERROR = Response(status_code=200, executed_version="$LATEST", function_error="Unhandled", payload=b"{}")
THROTTLED = Response(status_code=429, message="Rate Exceeded.")


def course(attempt: Attempt, config: EventConfig, most: int = 1000) -> tuple[list[float], EventEnd | None]:
    """Give the seconds after which an event is tried whose attempts all end alike, and how it ends."""
    event, now, tried = EVENT, EVENT.accepted_at, []
    while len(tried) < most:
        ended = before(event, config, now)
        if ended is not None:
            return tried, ended
        tried.append(now - EVENT.accepted_at)
        follows = after(event, attempt, config, now)
        if isinstance(follows, EventEnd):
            return tried, follows
        event, now = follows.event, follows.at
    return tried, None


@pytest.mark.parametrize(("retries", "tried"), [(0, [0]), (1, [0, 60]), (2, [0, 60, 180])])
def test_a_function_that_fails_is_tried_again_after_one_and_two_minutes(retries, tried) -> None:
    times, end = course(Failed(ERROR), EventConfig(retries=retries))
    assert times == tried
    assert end == EventEnd(
        condition="RetriesExhausted", at=1000.0 + tried[-1], invoke_count=retries + 1, response=ERROR
    )
    assert not end.success


def test_an_event_that_would_be_too_old_for_its_next_attempt_ends_at_once() -> None:
    times, end = course(Failed(ERROR), EventConfig(maximum_age=100))
    assert times == [0, 60]  # the next one would be at 180
    assert end == EventEnd(condition="EventAgeExceeded", at=1060.0, invoke_count=2, response=ERROR)


def test_refusals_are_no_attempts_and_come_further_and_further_apart_until_the_event_is_too_old() -> None:
    times, end = course(Held(THROTTLED), EventConfig(retries=0))
    delays = [later - earlier for earlier, later in pairwise(times)]
    assert delays[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert set(delays[9:]) == {300}
    assert end is not None
    assert (end.condition, end.invoke_count, end.response) == ("EventAgeExceeded", 0, THROTTLED)
    assert 21_300 < times[-1] <= 21_600
    assert throttle_delay(10**6) == 300


def test_an_attempt_of_the_function_ends_a_series_of_refusals() -> None:
    held = after(replace(EVENT, throttles=5), Held(THROTTLED), EventConfig(), 2000.0)
    assert held == Again(replace(EVENT, throttles=6), 2032.0)
    failed = after(held.event, Failed(ERROR), EventConfig(), 2032.0)
    assert failed == Again(replace(EVENT, failures=1), 2092.0)
    assert after(failed.event, Held(THROTTLED), EventConfig(), 2092.0) == Again(
        replace(EVENT, failures=1, throttles=1), 2093.0
    )


def test_what_is_handled_or_can_never_run_ends() -> None:
    handled = after(replace(EVENT, failures=1), Succeeded(RESULT), EventConfig(), 1060.0)
    assert handled == EventEnd(condition="Success", at=1060.0, invoke_count=2, response=RESULT)
    assert handled.success
    refused = after(EVENT, Refused("ZeroReservedConcurrency", THROTTLED), EventConfig(), 1001.0)
    assert refused == EventEnd(condition="ZeroReservedConcurrency", at=1001.0, invoke_count=0, response=THROTTLED)


def test_an_event_is_not_begun_that_is_too_old_or_has_killed_three_hosts() -> None:
    config = EventConfig(maximum_age=60)
    assert before(EVENT, config, 1060.0) is None
    too_old = before(EVENT, config, 1060.1)
    assert too_old is not None
    assert too_old.condition == "EventAgeExceeded"
    assert before(replace(EVENT, deaths=2), config, 1000.0) is None
    deadly = before(replace(EVENT, deaths=3), config, 1000.0)
    assert deadly is not None
    assert (deadly.condition, deadly.invoke_count) == ("HostDeaths", 3)
    assert deadly.response is not None
    assert deadly.response.message == "The host died 3 times while it ran this event."


def test_a_clock_that_was_set_back_makes_no_event_younger_than_new() -> None:
    assert EVENT.age(10.0) == 0.0
    assert before(EVENT, EventConfig(maximum_age=60), 10.0) is None
