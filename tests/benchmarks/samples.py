"""What a load generator might have measured, for the tests of what is made of it."""

from __future__ import annotations

from benchmarks.harness.rounds import Sample


def sample(
    server: str,
    rate: float = 1000,
    cpu_us: float | None = None,
    *,
    round_: int = 0,
    workload: str = "hello",
    level: int = 16,
    bad: int = 0,
) -> Sample:
    """Make one.

    :param cpu_us: of a call; None: as if the server were all that took time.
    :param bad: answers that were errors.
    """
    return Sample(
        round=round_,
        workload=workload,
        level=level,
        server=server,
        rate=rate,
        p50_us=1,
        p99_us=2,
        cpu_us=1e6 / rate if cpu_us is None else cpu_us,
        noise=0.0,
        work_ms=2.0,
        bad_status=bad,
        socket_errors=0,
    )
