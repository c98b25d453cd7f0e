"""How the benchmarks deploy functions, find their processes and judge them; nothing here depends on how fast it is."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.harness.deploying import BOOTSTRAP, deploy, package
from benchmarks.harness.environments import Environments, occupy, plain_rate, serving
from benchmarks.harness.figures import Results
from benchmarks.harness.goals import Goal, goals
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import family, sandboxes
from benchmarks.harness.servers import Contestant, contestants, invocations, running
from benchmarks.harness.together import Pair, pairings
from benchmarks.harness.workloads import workloads
from tests.benchmarks.samples import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.harness.rounds import Sample
    from benchmarks.harness.servers import Server


def results(samples: list[Sample], together: list[Pair], environments: Environments | None = None) -> Results:
    return Results(
        samples=samples,
        together=together,
        workers=[],
        starts=[],
        memory=None,
        environments=environments,
        failures=[],
    )


def goal(found: Results, what: str) -> Goal:
    return next(one for one in goals(found) if one.what == what)


def test_deployed_functions_are_measured_against_bare() -> None:
    assert list(pairings(("bare", "ours-worker", "ours-awslambdaric")))[1:] == [
        ("ours-worker", "bare"),
        ("ours-awslambdaric", "bare"),
    ]


def test_processes_behind_walls_are_measured_against_those_within_limits_and_judged_by_cpu() -> None:
    assert list(pairings(("ours-worker", "ours-strict"))) == [("ours-strict", "ours-worker")]
    both = Pair(mine=sample("ours-strict", 40, 125), theirs=sample("ours-worker", 60, 100))
    found = goal(results([], [both]), "hello, ours-strict, c16")
    assert (found.figure, found.verdict, found.note) == (0.8, "MISS", "side by side, by CPU")
    turns = [sample("ours-strict", 40, 100), sample("ours-worker", 60, 95)]
    found = goal(results(turns, []), "hello, ours-strict, c16")
    assert (found.figure, found.verdict, found.note) == (0.95, "PASS", "by turns, by CPU")


def test_deployed_functions_are_judged_by_cpu_since_many_processes_get_more_than_half_of_a_core() -> None:
    unfair = Pair(mine=sample("ours-worker", 50, 100), theirs=sample("bare", 100, 30))
    turns = [sample("ours-worker", 31, 100), sample("bare", 100, 30)]
    found = goal(results(turns, [unfair]), "hello, ours-worker, c16")
    assert (found.figure, found.verdict) == (0.3, "MISS")
    assert found.note == "side by side, by CPU; rate by turns 0.31"


def test_deployed_functions_are_judged_by_rate_where_they_were_measured_by_turns_alone() -> None:
    found = goal(
        results([sample("ours-awslambdaric", 14, 250), sample("bare", 100, 30)], []), "hello, ours-awslambdaric, c16"
    )
    assert (found.figure, found.verdict, found.note) == (0.14, "PASS", "by CPU 0.12")


@pytest.mark.parametrize(("bare_us", "figure", "verdict"), [(42, 126, "MISS"), (63, 84, "PASS")])
def test_the_cpu_time_of_a_call_is_judged_on_the_scale_of_the_machine_of_its_goal(
    bare_us: float, figure: float, verdict: str
) -> None:
    taken = [sample("ours-worker", 32, 126), sample("bare", 100, bare_us)]
    found = goal(results(taken, []), "CPU of a call, ours-worker, c16")
    assert (found.figure, found.verdict) == (pytest.approx(figure), verdict)
    assert found.note == f"here 126 us, {126 / bare_us:.2f} x bare"


@pytest.mark.parametrize(
    ("what", "figure", "verdict"),
    [
        ("cold start over a warm call, forked", 9, "PASS"),
        ("cold start over a warm call, strict", 20, "PASS"),
        ("cold start over a warm call, spawned", 41, "MISS"),
        ("idle worker process (PSS)", 4.5, "PASS"),
        ("two functions that compute", 0.85, "MISS"),
        ("200 idle environments", 2, "MISS"),
        ("cold start that imports boto3", 8, "PASS"),
    ],
)
def test_each_figure_of_environments_has_a_goal(what: str, figure: float, verdict: str) -> None:
    measured = Environments(
        forked_ms=(8, 9, 30),
        strict_ms=(20,),
        spawned_ms=(41,),
        worker_mb=(4.5,),
        computing=(0.8, 0.9),
        idle_cores=(0.02,),
        restored=(4, 8, 12),
        noise=0.125,
    )
    found = goal(results([], [], measured), what)
    assert (found.figure, found.verdict) == (pytest.approx(figure), verdict)
    assert found.note == ("" if "PSS" in what else "noise 12 %")
    assert goal(results([], []), what).verdict == "NOT MEASURED"


NESTED = """
import os, subprocess, sys
depth = int(sys.argv[1])
if depth:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], str(depth - 1), sys.argv[2]], start_new_session=True)
else:
    print("READY", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def nested() -> Iterator[int]:
    """A process with a child and a grandchild, each in a session of its own; all end with their standard input."""
    command = [sys.executable, "-c", NESTED, "2", NESTED]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "READY\n"
        yield process.pid
        process.stdin.close()
        process.stdout.read()  # until the last of them has ended


def test_processes_that_lead_sessions_of_their_own_belong_to_the_server_that_they_descend_from(nested: int) -> None:
    sessions = {os.getsid(pid) for pid in family(nested)}
    assert len(family(nested)) == len(sessions) == 3
    assert len(sandboxes(nested)) == 1
    assert set(sandboxes(nested)) < set(family(nested))


def test_a_packed_program_can_be_executed_and_names_its_interpreter() -> None:
    with zipfile.ZipFile(io.BytesIO(package(BOOTSTRAP))) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.external_attr >> 16 & 0o111) == ("bootstrap", 0o111)
        interpreter = archive.read(entry).decode().partition("\n")[0].removeprefix("#!").split()[0]
    assert os.access(interpreter, os.X_OK)


def test_a_failed_deployment_is_told_at_once_and_not_tried_again() -> None:
    tried = []

    def refuse(url: str, handler: str) -> None:
        tried.append(handler)
        raise NotMeasured("it cannot be deployed")

    contestant = Contestant(
        name="refusing",
        command=lambda port, handler: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        path=invocations,
        deploy=refuse,
    )
    with running(contestant, "hello", None) as server, pytest.raises(NotMeasured, match="cannot be deployed"):
        server.wait_ready(workloads()["hello"])
    assert tried == ["hello"]


def test_two_plain_processes_say_how_much_they_have_done() -> None:
    assert plain_rate(0.1) > 0


@pytest.fixture
def host() -> Iterator[Server]:
    with serving(None) as server:
        yield server


@pytest.mark.slow
def test_a_deployment_that_the_server_refuses_is_not_measured(host: Server) -> None:
    with pytest.raises(NotMeasured, match=r"f cannot be deployed: .*runtime"):
        deploy(f"http://127.0.0.1:{host.port}", "f", "lambda_function.hello", runtime="cobol")


@pytest.mark.slow
def test_as_many_environments_are_made_as_are_asked_for_and_their_cpu_time_counts(host: Server) -> None:
    deploy(f"http://127.0.0.1:{host.port}", "gate", "gate.wait")
    before = sandboxes(host.process.pid)
    occupy(host, 12)
    assert len(sandboxes(host.process.pid)) == len(before) + 12
    assert set(sandboxes(host.process.pid)) < set(host.pids())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours-worker", "ours-awslambdaric"])
@pytest.mark.parametrize("workload", ["hello", "log"])
def test_deployed_functions_give_the_right_answers(name: str, workload: str) -> None:
    chosen = workloads()[workload]
    with running(contestants()[name], chosen.handler, None) as server:
        server.wait_ready(chosen)
        clients = [Path(f"/proc/{pid}/cmdline").read_text() for pid in sandboxes(server.process.pid)]
    assert len(clients) == 1
    assert ("awslambdaric" in clients[0]) == (name == "ours-awslambdaric")
