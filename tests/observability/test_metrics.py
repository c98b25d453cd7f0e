"""What is counted, and how it is shown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from serverfull.observability.cells import LocalCells
from serverfull.observability.exposition import exposition
from serverfull.observability.metrics import ConnectionCounts, Metrics, Samples
from serverfull.observability.user_metrics import UserMetrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def lines_of(metrics: Metrics) -> list[str]:
    return exposition(metrics)[0].decode().splitlines()


def test_an_invocation_shows_in_lambdas_words(metrics: Metrics) -> None:
    figures = metrics.function("hello")
    assert metrics.function("hello") is figures
    figures.started()
    figures.started()
    assert 'serverfull_concurrent_executions{function="hello"} 2.0' in lines_of(metrics)
    figures.finished(0.02, error=True)
    figures.discarded()
    figures.timed_out()
    figures.thread_lost()
    figures.thread_lost()
    figures.thread_recovered()
    figures.throttled("ConcurrentInvocationLimitExceeded")
    figures.async_received()
    figures.async_dropped()
    figures.async_event_age(-5)
    figures.log_bytes_dropped(7)
    lines = lines_of(metrics)
    for line in (
        'serverfull_invocations_total{function="hello"} 1.0',
        'serverfull_errors_total{function="hello"} 1.0',
        'serverfull_concurrent_executions{function="hello"} 0.0',
        'serverfull_concurrent_executions_peak{function="hello"} 2.0',
        'serverfull_duration_seconds_bucket{function="hello",le="0.01"} 0.0',
        'serverfull_duration_seconds_bucket{function="hello",le="0.025"} 1.0',
        'serverfull_duration_seconds_bucket{function="hello",le="+Inf"} 1.0',
        'serverfull_duration_seconds_count{function="hello"} 1.0',
        'serverfull_duration_seconds_sum{function="hello"} 0.02',
        'serverfull_timeouts_total{function="hello"} 1.0',
        'serverfull_lost_threads{function="hello"} 1.0',
        'serverfull_lost_threads_total{function="hello"} 2.0',
        'serverfull_throttles_total{function="hello",reason="ConcurrentInvocationLimitExceeded"} 1.0',
        'serverfull_async_events_received_total{function="hello"} 1.0',
        'serverfull_async_events_dropped_total{function="hello"} 1.0',
        'serverfull_async_event_age_seconds_sum{function="hello"} 0.0',
        'serverfull_log_bytes_dropped_total{function="hello"} 7.0',
    ):
        assert line in lines


def test_a_duration_on_a_bound_belongs_to_its_bucket(metrics: Metrics) -> None:
    metrics.function("f").started()
    metrics.function("f").finished(0.005, error=False)
    assert 'serverfull_duration_seconds_bucket{function="f",le="0.005"} 1.0' in lines_of(metrics)


def test_a_function_with_a_limit_of_its_own_is_not_unreserved(metrics: Metrics) -> None:
    metrics.function("free").started()
    metrics.function("limited").started()
    metrics.function("limited").reserved(True)
    lines = lines_of(metrics)
    assert "serverfull_account_concurrent_executions 2.0" in lines
    assert "serverfull_unreserved_concurrent_executions 1.0" in lines


class Full:
    """A sink that has lost some records."""

    dropped = 7


def test_host_figures_show(metrics: Metrics) -> None:
    metrics.loop_stalled("slow")
    metrics.loop_stall_seconds("slow", 1.5)
    metrics.responded(200)
    metrics.responded(404)
    metrics.count("fetcher.fetches", 3, tags={"source": "static"})
    metrics.count("fetcher.failures", tags={"source": "static"})
    metrics.connections = lambda: ConnectionCounts(now={"idle": 4}, total={"new": 9, "closed": 5})
    metrics.watch_log("files", Full())
    assert 'serverfull_log_records_dropped_total{sink="files"} 7.0' in lines_of(metrics)
    lines = lines_of(metrics)
    for line in (
        'serverfull_log_records_dropped_total{sink="files"} 7.0',
        'serverfull_loop_stalls_total{function="slow"} 1.0',
        'serverfull_loop_stall_seconds_total{function="slow"} 1.5',
        'serverfull_http_responses_total{status="2xx"} 1.0',
        'serverfull_http_responses_total{status="4xx"} 1.0',
        'serverfull_fetches_total{result="found",source="static"} 3.0',
        'serverfull_fetches_total{result="failed",source="static"} 1.0',
        'serverfull_connections{state="idle"} 4.0',
        'serverfull_connection_events_total{event="closed"} 5.0',
    ):
        assert line in lines


async def test_process_figures_show(metrics: Metrics) -> None:
    metrics.process.loop = asyncio.get_running_loop()
    shown = dict(line.rsplit(" ", 1) for line in lines_of(metrics) if not line.startswith("#"))
    assert float(shown["process_resident_memory_bytes"]) > 1_000_000
    assert float(shown["process_open_fds"]) >= 3
    assert float(shown["serverfull_asyncio_tasks"]) == len(asyncio.all_tasks())
    assert float(shown["process_start_time_seconds"]) > 1_700_000_000


def test_parts_that_count_on_their_own_are_asked_before_a_scrape(metrics: Metrics) -> None:
    metrics.before_sample.append(lambda: metrics.responded(500))
    assert 'serverfull_http_responses_total{status="5xx"} 1.0' in lines_of(metrics)


def test_two_hosts_in_one_process_do_not_share_figures(metrics: Metrics) -> None:
    metrics.function("hello").throttled("x")
    assert "hello" not in exposition(Metrics())[0].decode()


def test_a_function_name_cannot_break_out_of_its_label(metrics: Metrics) -> None:
    metrics.function('a"} 1\nfake 1').started()
    assert "fake 1" not in lines_of(metrics)


def test_neither_prometheus_client_nor_structlog_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys\n"
        "import serverfull.observability.statsd\n"
        "from serverfull.config import LoggingSettings\n"
        "from serverfull.observability.exposition import exposition\n"
        "from serverfull.observability.handles import logger\n"
        "from serverfull.observability.logger import HostLogger\n"
        "from serverfull.observability.metrics import Metrics\n"
        "Metrics().function('f').started()\n"
        "HostLogger(LoggingSettings()).debug('not shown')\n"
        "logger().info('shown')\n"
        "print([name for name in ('structlog', 'prometheus_client') if name in sys.modules])\n"
        "exposition(Metrics())\n"
        "HostLogger(LoggingSettings()).info('shown')\n"
        "print([name for name in ('structlog', 'prometheus_client') if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n['structlog', 'prometheus_client']\n"


def test_samples_are_bounded_and_know_how_many_there_were() -> None:
    samples = Samples()
    for value in range(5000):
        samples.add(float(value))
    assert (len(samples.values), samples.seen) == (1024, 5000)
    assert max(samples.values) > 1024


class TestUserMetrics:
    def test_every_kind_shows(self, metrics: Metrics) -> None:
        user = UserMetrics(metrics.cells)
        user.count("orders.placed", 2, shop="north")
        user.count("orders.placed", shop="north")
        user.gauge("queue-length", 3)
        user.gauge("queue-length", 2)
        user.histogram("size", 30, kind="box")
        user.timing("step", 0.2)
        lines = lines_of(metrics)
        for line in (
            'orders_placed_total{shop="north"} 3.0',
            "queue_length 2.0",
            'size_bucket{kind="box",le="25.0"} 0.0',
            'size_bucket{kind="box",le="50.0"} 1.0',
            "step_seconds_sum 0.2",
            'step_seconds_bucket{le="0.25"} 1.0',
        ):
            assert line in lines

    def test_the_order_of_tags_does_not_matter(self, metrics: Metrics) -> None:
        user = UserMetrics(metrics.cells)
        user.count("orders", a=1, b=2)
        user.count("orders", b=2, a=1)
        assert 'orders_total{a="1",b="2"} 2.0' in lines_of(metrics)

    @pytest.mark.parametrize(
        "use",
        [
            lambda user: user.count("orders", town="x"),
            lambda user: user.gauge("orders", 1, shop="x"),
            lambda user: user.gauge("orders_total", 1, shop="x"),
            lambda user: user.count("orders_total", shop="x"),
            lambda user: user.count("ord.ers", 1) or user.count("ord_ers", 1),
            lambda user: user.count("serverfull_invocations"),
            lambda user: user.gauge("process_open_fds", 1),
            lambda user: user.count("more", **{"a.b": 1, "a_b": 2}),
            lambda user: user.count(""),
            lambda user: user.count("orders", -1, shop="x"),
            lambda user: user.count("orders", float("nan"), shop="x"),
            lambda user: user.histogram("sizes", float("inf")),
        ],
    )
    def test_what_cannot_be_shown_is_refused_at_once(self, metrics: Metrics, use: object) -> None:
        user = UserMetrics(metrics.cells)
        user.count("orders", shop="north")
        with pytest.raises(ValueError):
            use(user)  # type: ignore[operator]
        assert 'orders_total{shop="north"} 1.0' in lines_of(metrics)

    def test_series_without_end_are_dropped_counted_and_warned_about_once(self, metrics: Metrics) -> None:
        warnings: list[object] = []
        user = UserMetrics(metrics.cells, lambda *said, **fields: warnings.append(fields["metric"]), max_series=10)
        for number in range(25):
            user.count("visits", user=number)
        user.count("visits", user=3)
        user.count("others")
        lines = lines_of(metrics)
        assert sum(line.startswith("visits_total{") for line in lines) == 10
        assert 'visits_total{user="3"} 2.0' in lines
        assert "serverfull_user_metrics_dropped_total 15.0" in lines
        assert warnings == ["visits"]

    def test_no_count_is_lost_between_threads(self) -> None:
        cells = LocalCells()
        user = UserMetrics(cells)
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [
                threading.Thread(target=lambda: [user.count("n", thread="x") for _ in range(2000)]) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)
        (key,) = (key for key in cells.keys() if key.startswith("user"))  # noqa: SIM118
        assert cells.sums(key) == [8000.0]
