"""Times as AWS writes them into logs and telemetry."""

from __future__ import annotations

import time


def timestamp(at: float) -> str:
    """Give seconds since the epoch as ``2026-01-31T12:00:00.000Z``."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03d}Z"
