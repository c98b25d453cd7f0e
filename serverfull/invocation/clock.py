"""What time it is, for the queue of events."""

from __future__ import annotations

import time


class SteadyClock:
    """The time of day when it was made, and the seconds since: whoever sets the machine's clock does not move it."""

    def __init__(self) -> None:
        self._began = time.time() - time.monotonic()

    def now(self) -> float:
        """Give the seconds since the epoch."""
        return self._began + time.monotonic()
