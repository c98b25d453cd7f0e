"""The benchmarks' own arithmetic and the start of two load generators; nothing here depends on how fast anything is."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.figures import Results, faults
from benchmarks.harness.goals import Goal, goals
from benchmarks.harness.load import Load, NotMeasured, ready
from benchmarks.harness.machine import cpu_seconds
from benchmarks.harness.report import together_table, trust
from benchmarks.harness.together import AGAIN, Pair, cpu_each, pairings
from tests.benchmarks.samples import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.harness.rounds import Sample


def pair(server: str, rate: float, other: str = "bare", *, round_: int = 0, bad: int = 0) -> Pair:
    return Pair(mine=sample(server, rate, round_=round_, bad=bad), theirs=sample(other, 100, round_=round_))


def results(samples: list[Sample], together: list[Pair]) -> Results:
    return Results(samples=samples, together=together, workers=[], starts=[], memory=None, failures=[])


def goal(found: Results, what: str) -> Goal:
    return next(one for one in goals(found) if one.what == what)


HELLO = "hello, async handler, c16"
BY_TURNS = [sample("ours-async", 92), sample("bare", 100)]


def test_a_goal_is_judged_side_by_side_and_the_figure_by_turns_stands_beside_it() -> None:
    three = [pair("ours-async", rate, round_=round_) for round_, rate in enumerate((70, 75, 90))]
    found = goal(results(BY_TURNS, three), HELLO)
    assert (found.figure, found.verdict) == (0.75, "MISS")
    assert found.note == "side by side, by CPU 0.75, by turns 0.92"


def test_a_goal_is_judged_by_turns_where_nothing_was_measured_side_by_side() -> None:
    found = goal(results(BY_TURNS, []), HELLO)
    assert (found.figure, found.verdict, found.note) == (0.92, "PASS", "by CPU 0.92")


def test_mock_answers_are_judged_against_real_calls_side_by_side() -> None:
    found = goal(results([], [pair("ours-mock", 95, "ours-async")]), "mock answers, c16")
    assert (found.figure, found.note) == (0.95, "side by side, by CPU 0.95")


def test_a_pair_with_errors_does_not_count() -> None:
    found = goal(results(BY_TURNS, [pair("ours-async", 500, bad=3), pair("ours-async", 70, round_=1)]), HELLO)
    assert found.figure == 0.7


def test_sleep_is_judged_on_the_scale_of_the_machine_of_the_goal_and_says_what_was_reached_here() -> None:
    taken = [
        sample(server, rate, workload="sleep", level=64) for server, rate in (("ours-async", 6400), ("bare", 3200))
    ]
    found = goal(results(taken, []), "sleep 5 ms, ours-async, c64")
    assert (found.figure, found.verdict) == (2 * 0.714, "PASS")
    assert found.note == "here 0.50, bare 0.25: 2.00 x bare"


def test_the_table_shows_ratio_range_and_control() -> None:
    taken = [pair(AGAIN, 100), pair(AGAIN, 103, round_=1), pair("ours-async", 80), pair("ours-async", 90, round_=1)]
    _, control, ours = together_table(taken)
    assert control.endswith("(control)")
    assert "0.85 0.80 to 0.90" in ours
    assert "single rounds 1.00 to 1.03" in trust(taken)
    assert "was not measured" in trust(taken[2:])


def test_ours_is_paired_with_bare_and_mock_with_real_calls_as_far_as_they_were_chosen() -> None:
    every = ("bare", "ours-async", "ours-sync", "ours-mock", "functions-framework")
    with_bare = [(AGAIN, "bare"), ("ours-async", "bare"), ("ours-sync", "bare")]
    assert list(pairings(every)) == [*with_bare, ("ours-mock", "ours-async")]
    assert list(pairings(("bare", "ours-sync"))) == [with_bare[0], with_bare[2]]
    assert list(pairings(("ours-async", "ours-sync"))) == []


def test_requests_that_are_under_way_when_the_load_ends_count_as_the_time_they_take_does() -> None:
    seen = Load(requests=436, seconds=1.0, bad_status=0, socket_errors=0, p50_us=1, p99_us=1)
    assert cpu_each(1.0, seen, 64) == 0.002


def test_faults_name_the_server_that_erred() -> None:
    assert [text.split()[0] for text in faults([sample("bare", 100), sample("ours-async", 100, bad=1)])] == [
        "ours-async"
    ]


def test_the_cpu_clock_of_a_process_counts_all_its_threads() -> None:
    def work() -> None:
        while time.thread_time() < 0.05:
            pass

    before = cpu_seconds([os.getpid()])
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cpu_seconds([os.getpid()]) - before >= 0.1


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        server.asked = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


@needs_wrk
@pytest.mark.slow
def test_a_load_generator_sends_nothing_until_it_is_told_to(
    answering: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"{}")
    url = f"http://127.0.0.1:{answering.server_address[1]}/"
    with ready(url, body, 1, 1, None) as first, ready(url, body, 1, 1, None) as second:
        assert not answering.asked.wait(0.5)  # type: ignore[attr-defined]
        first.go()
        second.go()
        loads = [first.result(), second.result()]
    assert all(one.requests and not one.socket_errors and not one.bad_status for one in loads)


@needs_wrk
def test_a_load_generator_without_a_server_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match="unable to connect"), ready("http://127.0.0.1:9/", tmp_path, 1, 1, None):
        pass
