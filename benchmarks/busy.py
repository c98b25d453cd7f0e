"""The fixed piece of work that every server does in the ``cpu`` workload; imported by all of them."""

from __future__ import annotations

ITERATIONS = 50_000
"""Turns of the loop: about 2 ms of a quiet 2.8 GHz Xeon core with CPython 3.11. What counts is that all do the same."""


def busy() -> int:
    """Keep a core busy in pure Python (the GIL held) for about 2 ms and return the same number every time."""
    total = 0
    for number in range(ITERATIONS):
        total += number & 7
    return total
