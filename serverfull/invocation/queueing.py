"""What the queue of events is told: what an operator has decided, and who runs functions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from serverfull.domain.events import BASE_DELAY, Attempt, Delivery, EventConfig, EventEnd, QueuedEvent
from serverfull.errors import TooManyRequests


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator decides about events.

    :param backlog: events waiting at most, of all functions together.
    :param function_backlog: the same, of one function.
    :param base_delay: seconds before the first retry of a function that failed.
    :param keep: seconds that events are kept for the operator that have ended with nobody to tell.
    :param retry: seconds after which a refused event is tried again although nothing was freed here, for limits that
        are shared with other processes; None: everything that is freed is heard of.
    """

    backlog: int
    function_backlog: int
    base_delay: float = BASE_DELAY
    keep: float = 1_209_600.0
    retry: float | None = None

    def check_backlog(self, waiting: int, of_function: int) -> None:
        """Refuse an event where as many wait as may.

        :raises TooManyRequests: on the host, or of its function.
        """
        if waiting >= self.backlog:
            raise TooManyRequests("CallerRateLimitExceeded", message="Too many events are waiting on this host.")
        if of_function >= self.function_backlog:
            raise TooManyRequests(
                "CallerRateLimitExceeded", message="Too many events of this function are waiting on this host."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What the queue needs of whoever runs functions.

    :param run: runs an event once; calls what it was given as soon as no limit can refuse the event any more. Must not
        raise.
    :param config: says what is to be done with an event.
    :param deliveries: says who is to be told of one that has ended.
    :param ended: hears of each event that has ended, and whether it is kept for the operator. Must not raise.
    """

    run: Callable[[QueuedEvent, Callable[[], None]], Awaitable[Attempt]]
    config: Callable[[QueuedEvent], Awaitable[EventConfig]]
    deliveries: Callable[[QueuedEvent, EventEnd, EventConfig], Sequence[Delivery]]
    ended: Callable[[QueuedEvent, EventEnd, bool], None]
