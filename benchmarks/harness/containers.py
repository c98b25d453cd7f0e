"""Measures functions in Docker containers: warm calls over the Unix socket, cold starts, and what many warm ones hold.

The engine is the one that the container tests have: the machine's own, or one that is started for the time being.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from benchmarks.harness.deploying import deploy
from benchmarks.harness.environments import call, cold_ms, connected, occupy, url
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import PROC, cores, pinned
from benchmarks.harness.rounds import Plan, Sample, measure, settle
from benchmarks.harness.servers import BARE, Contestant, Server, bare, running, serverfull
from benchmarks.harness.workloads import Workload

if TYPE_CHECKING:
    from integration.engines import TestEngine

CONTAINER = "ours-container"
RUNTIME = "python3.11"
"""The one that the image has."""

LEVEL = 16
"""Connections of the warm calls; each has a container."""

WARM_UP = 5
"""Seconds of load before the warm calls: each connection waits for its container first."""

AT_ONCE = 4
"""Containers that start at the same time: an engine makes them one after the other."""

MANY = 50
"""Warm containers whose memory is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """What containers cost.

    :param samples: warm calls of one function, and bare.
    :param cold_ms: by how much the first call of a function takes longer than a warm one; a value a function.
    :param stats_mb: what ``docker stats`` says that each of many warm ones uses, without what its files have cached.
    :param host_mb: by how much the machine has less memory available for each of them, with all that is around them.
    """

    samples: Sequence[Sample]
    cold_ms: tuple[float, ...] = ()
    stats_mb: tuple[float, ...] = ()
    host_mb: float = 0.0


class NoEngine(Exception):
    """Nothing here runs containers; the message says why."""


@contextmanager
def engine() -> Iterator[TestEngine]:
    """Give an engine, with the image that runs functions.

    :raises NoEngine: there is none, and none can be started.
    """
    try:
        from integration import base_image, engines
    except ImportError as missing:
        raise NoEngine(str(missing)) from missing
    if not base_image.obtainable():
        raise NoEngine(engines.INSTALL)
    try:
        machines = engines.machine_engine()
        if machines is not None:
            with engines.with_image(machines) as found:
                yield found
            return
        with pinned(cores()[0]), engines.OwnEngine() as own, engines.with_image(own.url, own) as found:
            yield found
    except (engines.EngineUnfit, FileNotFoundError, PermissionError) as unfit:
        raise NoEngine(f"{unfit} ({engines.INSTALL})") from unfit


def container_pids(found: TestEngine) -> list[int]:
    """List the processes of all containers of an engine: their control groups are named after these."""
    with found.client() as client:
        known = {container["Id"] for container in client.api.containers()}
    members = []
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if known.intersection(re.findall(r"[0-9a-f]{64}", (process / "cgroup").read_text())):
                members.append(int(process.name))
    return sorted(members)


def ours_container(found: TestEngine) -> Contestant:
    """Give our server with functions that run in containers."""
    variables = {
        "SERVERFULL_EXECUTION__MODE": "docker",
        "SERVERFULL_DOCKER__ENGINE": found.url,
        "SERVERFULL_DOCKER_IMAGES": f"{RUNTIME}={found.image}",
    }
    return replace(
        serverfull(CONTAINER, "--state", "memory"),
        handlers=("hello",),
        deploy=lambda url, handler: deploy(url, handler, f"lambda_function.{handler}", runtime=RUNTIME),
        variables=variables,
        most=LEVEL,
        elsewhere=lambda: container_pids(found),
    )


@contextmanager
def serving(found: TestEngine) -> Iterator[Server]:
    """Run a host to deploy on; its first container has started, so that what all of them share is there."""
    with running(ours_container(found), "hello", None) as server:
        server.wait_listening()
        server.contestant.deploy(url(server), "hello")
        with connected(server) as connection:
            call(connection, "hello")
        yield server


def cold_starts(server: Server, functions: int) -> tuple[float, ...]:
    """Measure first calls of fresh functions; the very first one fills the caches."""
    taken = []
    for number in range(functions + 1):
        deploy(url(server), f"cold{number}", "lambda_function.hello", runtime=RUNTIME)
        taken.append(cold_ms(server, f"cold{number}"))
    return tuple(taken[1:])


def available_mb() -> float:
    """Give how much memory the machine has left."""
    lines = (PROC / "meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 1024


def stats_mb(found: TestEngine, function: str) -> tuple[float, ...]:
    """Give what ``docker stats`` says of the memory of each container of a function, in megabytes."""
    with found.client() as client:
        every = client.containers.list(filters={"label": f"serverfull.function={function}"})
        return tuple(_used_mb(container.stats(stream=False, one_shot=True)) for container in every)


def _used_mb(stats: dict[str, Any]) -> float:
    memory = stats["memory_stats"]
    cached = memory["stats"].get("inactive_file", memory["stats"].get("total_inactive_file", 0))
    return float(memory["usage"] - cached) / 1024 / 1024


def held(found: TestEngine, server: Server, containers: int) -> tuple[tuple[float, ...], float]:
    """Give the memory of that many warm containers by ``docker stats``, and that of the machine for each."""
    deploy(url(server), "gate", "gate.wait", runtime=RUNTIME, Timeout=900)
    before = available_mb()
    occupy(server, containers, found.gateway(), AT_ONCE)
    with suppress(NotMeasured):  # a loaded machine settles late, and what is held does not change
        settle(server)
    return stats_mb(found, "gate"), (before - available_mb()) / containers


def containers(
    plan: Plan, functions: int, workload: Workload, say: Callable[[str], None], failures: list[str]
) -> Containers:
    """Measure all of it.

    :param functions: fresh functions whose first calls are taken.
    :param failures: gets what could not be measured.
    :raises NoEngine: nothing here runs containers.
    """
    with engine() as found:
        wide = replace(plan, levels=(LEVEL,), warm_up=max(plan.warm_up, WARM_UP))
        warm = measure([bare(BARE), ours_container(found)], [workload], wide, say, failures)
        measured = Containers(samples=warm)
        try:
            say("containers: cold starts")
            with serving(found) as server:
                measured = replace(measured, cold_ms=cold_starts(server, functions))
            say(f"containers: {MANY} warm ones")
            with serving(found) as server:
                stats, each = held(found, server, MANY)
                measured = replace(measured, stats_mb=stats, host_mb=each)
        except (NotMeasured, OSError, HTTPException) as failure:
            failures.append(f"containers: {failure!r}")
    return measured
