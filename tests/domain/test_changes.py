"""Who hears of changes, and how long."""

from __future__ import annotations

from serverfull.domain.changes import Change, Changes, FunctionChanged
from serverfull.domain.records import Partition

CHANGE = FunctionChanged(Partition("123456789012", "eu-west-1"), "f")


def test_whoever_has_ended_listening_hears_nothing_more_and_the_others_do() -> None:
    changes = Changes()
    first: list[Change] = []
    second: list[Change] = []
    end = changes.subscribe(first.append)
    changes.subscribe(second.append)
    changes.publish(CHANGE)
    end()
    end()
    changes.publish(CHANGE)
    assert (first, second) == ([CHANGE], [CHANGE, CHANGE])


def test_a_listener_may_end_itself_and_the_next_still_hears() -> None:
    changes = Changes()
    heard: list[Change] = []
    end = changes.subscribe(lambda _: end())
    changes.subscribe(heard.append)
    changes.publish(CHANGE)
    assert heard == [CHANGE]
