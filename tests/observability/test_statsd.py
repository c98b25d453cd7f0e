"""DogStatsD on a real UDP socket."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import socket
from collections.abc import Iterator

import pytest

from serverfull.config import ExpvarSettings, LoggingSettings, Settings, StatsSettings
from serverfull.observability.logger import HostLogger
from serverfull.observability.metrics import ConnectionCounts, Metrics
from serverfull.observability.statsd import StatsdOutput, line, packets
from serverfull.observability.user_metrics import UserMetrics


class NoLog:
    def exception(self, event: str, **fields: object) -> None:
        pytest.fail(event)


@pytest.fixture
def agent() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening


def settings_for(agent: socket.socket, size: int = 32768, interval: float = 600.0) -> Settings:
    stats = StatsSettings(
        output="DATADOG",
        datadog_address=f"localhost:{agent.getsockname()[1]}",
        datadog_packetsize=size,
        datadog_flushinterval=interval,
        datadog_tags=("env:test",),
    )
    return Settings(stats=stats, expvar=ExpvarSettings(numgc="my.gc"))


def received(agent: socket.socket) -> list[str]:
    agent.setblocking(False)
    lines: list[str] = []
    while True:
        try:
            lines += agent.recv(65536).decode().split("\n")
        except BlockingIOError:
            return lines


class Full:
    """A sink that has lost some records."""

    dropped = 7


async def test_every_kind_of_figure_arrives_and_counts_are_what_was_added(agent: socket.socket) -> None:
    metrics = Metrics()
    user = UserMetrics(metrics.cells)
    metrics.function("hello").started()
    metrics.function("hello").finished(0.1, error=False)  # before the output was there: not its business
    metrics.connections = lambda: ConnectionCounts(now={"idle": 4}, total={"new": 9})
    async with StatsdOutput(settings_for(agent), metrics, user, NoLog()) as output:
        function = metrics.function("hello")
        function.started()
        function.started()
        function.finished(0.02, error=True)
        function.throttled("Rate")
        user.count("orders.placed", 3, shop="no|rth,x")
        user.gauge("queue", 7)
        user.histogram("size", 30)
        user.timing("step", 0.25)
        metrics.watch_log("files", Full())
        await output.flush()
        lines = received(agent)
        for expected in (
            "serverfull.invocations:1|c|#env:test,function:hello",
            "serverfull.errors:1|c|#env:test,function:hello",
            "serverfull.concurrent_executions:1|g|#env:test,function:hello",
            "serverfull.duration:20|ms|#env:test,function:hello",
            "serverfull.throttles:1|c|#env:test,function:hello,reason:Rate",
            "serverfull.log_records_dropped:7|c|#env:test,sink:files",
            "orders.placed:3|c|#env:test,shop:no_rth_x",
            "queue:7|g|#env:test",
            "size:30|h|#env:test",
            "step:250|ms|#env:test",
            "http.server.connstate.idle.gauge:4|g|#env:test",
            "http.server.connstate.new:9|c|#env:test",
        ):
            assert expected in lines
        names = {each.partition(":")[0] for each in lines}
        assert {"my.gc", "go_expvar.memstats.alloc", "go_expvar.goroutines.exists"} <= names

        user.count("orders.placed", 2, shop="no|rth,x")
    lines = received(agent)
    assert "orders.placed:2|c|#env:test,shop:no_rth_x" in lines
    assert not any(each.startswith(("serverfull.invocations", "size")) for each in lines)
    assert not any("pauses" in repr(callback).lower() for callback in gc.callbacks)


async def test_figures_are_sent_every_flush_interval(agent: socket.socket) -> None:
    metrics = Metrics()
    user = UserMetrics(metrics.cells)
    async with StatsdOutput(settings_for(agent, interval=0.01), metrics, user, NoLog()):
        for _ in range(2):
            user.count("ticks")
            async with asyncio.timeout(10):
                while b"ticks:1|c" not in await asyncio.to_thread(agent.recv, 65536):
                    pass


async def test_nobody_at_the_other_end_is_no_error(agent: socket.socket) -> None:
    settings = settings_for(agent)
    agent.close()
    metrics = Metrics()
    async with StatsdOutput(settings, metrics, UserMetrics(metrics.cells), NoLog()) as output:
        for _ in range(3):
            await output.flush()


async def test_an_address_that_does_not_resolve_drops_and_counts_and_is_said_once() -> None:
    stream = io.StringIO()
    log = HostLogger(LoggingSettings(format="json"), stream=stream)
    settings = Settings(stats=StatsSettings(datadog_address="no-such-host.invalid:8125"))
    metrics = Metrics()
    async with StatsdOutput(settings, metrics, UserMetrics(metrics.cells), log) as output:
        await output.flush()
        assert output.dropped == 1
        await output.flush()
    log.flush(10)
    (said,) = map(json.loads, stream.getvalue().splitlines())
    assert (said["level"], said["event"]) == ("warning", "statsd agent not found")
    assert said["address"] == "no-such-host.invalid:8125"
    assert said["reason"]


def test_lines_are_packed_into_datagrams_of_the_size() -> None:
    lines = [f"name{number}:1|c" for number in range(100)]
    sent = list(packets(lines, 50))
    assert max(map(len, sent)) <= 50
    assert b"\n".join(sent).decode().split("\n") == lines
    assert list(packets(["x" * 60, "y"], 50)) == [b"x" * 60, b"y"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (line("a:b|c\nd", 1, "c"), "a_b_c_d:1|c"),
        (line("a", 0.5, "h", (), 0.25), "a:0.5|h|@0.25"),
        (line("a", 10**15, "g", ("x:1", "y\n:2")), "a:1e+15|g|#x:1,y_:2"),
    ],
)
def test_a_line_has_the_protocols_shape(written: str, expected: str) -> None:
    assert written == expected
