"""Measures what execution environments of deployed functions cost: to start, to keep, and beside each other."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from itertools import count
from statistics import median

from benchmarks.busy import busy
from benchmarks.harness.deploying import BOOTSTRAP, deploy
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import Ticks, cores, ended_children_seconds, noise, pinned, pss_kilobytes, sandboxes
from benchmarks.harness.rounds import settle
from benchmarks.harness.servers import ROOT, STRICT, WORKER, Server, contestants, environment, invocations, running
from serverfull.runtimes.process.means import probe_strict

WARM_CALLS = 10
"""Warm calls whose median is taken from the time of a first call."""

FEW, MANY = 20, 200
"""Environments whose memory is read, and whose idling is."""

WAVE = 10
"""Environments that start at the same time."""

TURNS = 50
"""Turns of the fixed work in one call of a function that computes: about 0.1 s, so that calling costs little."""

HELLO = b'"hello"'
DEADLINE = 30.0
ALL_DEADLINE = 240.0
"""Seconds within which as many environments are made as are to be busy at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environments:
    """What environments cost; a value a function, or one a round.

    :param forked_ms: by how much the first call of a function takes longer than a warm one, its process forked.
    :param spawned_ms: the same of a function that is a program of its own.
    :param worker_mb: PSS of one idle worker process.
    :param computing: what two busy functions get done, against two plain processes.
    :param idle_cores: share of one core that the host with all its processes takes while environments are idle.
    :param restored: how often a restore fits into the cold start of a function that imports boto3.
    :param strict_ms: as ``forked_ms``, behind the walls of the sandbox level ``strict``; none where that cannot be had.
    :param noise: share of the machine that was busy with something else while the worst of these was measured, 0 to 1.
    """

    forked_ms: tuple[float, ...]
    spawned_ms: tuple[float, ...]
    worker_mb: tuple[float, ...]
    computing: tuple[float, ...]
    idle_cores: tuple[float, ...]
    restored: tuple[float, ...] = ()
    strict_ms: tuple[float, ...] = ()
    noise: float


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def call(connection: HTTPConnection, function: str, event: object = None) -> float:
    """Invoke a function; return the seconds that it took.

    :raises NotMeasured: the answer is not the one of every function here.
    """
    body = json.dumps(event).encode()
    before = time.perf_counter()
    connection.request("POST", invocations(function), body)
    answer = connection.getresponse()
    said = answer.read()
    seconds = time.perf_counter() - before
    if said != HELLO or answer.headers.get("X-Amz-Function-Error"):
        raise NotMeasured(f"{function} answers status {answer.status}, body {said[:300]!r}")
    return seconds


def connected(server: Server, patience: float = DEADLINE) -> closing[HTTPConnection]:
    """Connect for calls one after the other.

    :param patience: seconds that a call may take.
    """
    connection = HTTPConnection("127.0.0.1", server.port, timeout=patience)
    connection.connect()
    return closing(connection)


@contextmanager
def serving(core: int | None, name: str = WORKER) -> Iterator[Server]:
    """Run a host to deploy on; its first sandbox has started, so that what all of them share is there."""
    with running(contestants()[name], "hello", core) as server:
        server.wait_listening()
        server.contestant.deploy(url(server), "hello")
        with connected(server) as connection:
            call(connection, "hello")
        yield server


@contextmanager
def listening(server: Server, heard: list[float]) -> Iterator[None]:
    """Add the share of the machine that is busy with other things while the block runs."""

    def own() -> float:
        return server.cpu_seconds() + ended_children_seconds() + time.process_time()

    ticks, before = Ticks.now(), own()
    yield
    heard.append(noise(ticks, Ticks.now(), own() - before))


def cold_ms(server: Server, function: str) -> float:
    """Give the milliseconds by which the first call of a function takes longer than a warm one."""
    with connected(server) as connection:
        first = call(connection, function)
        return (first - median(call(connection, function) for _ in range(WARM_CALLS))) * 1000


def cold_starts(functions: int, heard: list[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure first calls of fresh functions, forked and spawned by turns, on the server's core."""
    server_core, our_core = cores()
    with serving(server_core) as server, listening(server, heard), pinned(our_core):
        forked, spawned = [], []
        for number in range(functions + 1):  # the first one fills the caches
            deploy(url(server), f"forked{number}", "lambda_function.hello")
            deploy(url(server), f"spawned{number}", "none", runtime="provided.al2023", files=BOOTSTRAP)
            forked.append(cold_ms(server, f"forked{number}"))
            spawned.append(cold_ms(server, f"spawned{number}"))
        return tuple(forked[1:]), tuple(spawned[1:])


def strict_starts(functions: int, heard: list[float]) -> tuple[float, ...]:
    """Measure first calls of fresh functions behind walls; none where this machine cannot have those."""
    if probe_strict().why:
        return ()
    server_core, our_core = cores()
    with serving(server_core, STRICT) as server, listening(server, heard), pinned(our_core):
        taken = []
        for number in range(functions + 1):  # the first one fills the caches
            deploy(url(server), f"strict{number}", "lambda_function.hello")
            taken.append(cold_ms(server, f"strict{number}"))
        return tuple(taken[1:])


def occupy(server: Server, environments: int, host: str = "127.0.0.1", at_once: int = WAVE) -> None:
    """Make that many environments: have as many calls of a function under way at once, and let them end together.

    The calls come in waves, since a machine that starts all the processes at once needs longer than their
    initialisation may take.

    :param host: the address under which the functions find the harness.
    :param at_once: environments that start at the same time.
    :raises NotMeasured: one does not arrive or answers wrongly.
    """
    with ExitStack() as stack, ThreadPoolExecutor(environments) as threads:
        calls = []
        with ExitStack() as arrived:  # closed before the threads are waited for, or they would wait for ever
            gate = arrived.enter_context(socket.create_server((host, 0), backlog=environments))
            gate.settimeout(DEADLINE)
            event = {"host": host, "port": gate.getsockname()[1]}
            for begun in range(0, environments, at_once):
                starting = min(at_once, environments - begun)
                wave = [stack.enter_context(connected(server, ALL_DEADLINE)) for _ in range(starting)]
                calls += [threads.submit(call, connection, "gate", event) for connection in wave]
                try:
                    for _ in wave:
                        arrived.enter_context(gate.accept()[0])
                except TimeoutError:
                    said = server.last_words()
                    raise NotMeasured(f"not all calls of the wave after {begun} arrived: {said}") from None
        for one in calls:
            one.result()


@contextmanager
def idling(environments: int) -> Iterator[tuple[Server, list[int]]]:
    """Run a host with that many idle, warm environments of one function; gives it with their processes."""
    with serving(None) as server:
        before = set(sandboxes(server.process.pid))
        deploy(url(server), "gate", "gate.wait", Timeout=900)
        occupy(server, environments)
        settle(server)
        workers = sorted(set(sandboxes(server.process.pid)) - before)
        if len(workers) < environments:
            raise NotMeasured(f"{len(workers)} processes after {environments} calls at once: {server.last_words()}")
        yield server, workers


def worker_mb() -> float:
    """Give the PSS of an idle worker process: the mean of a few, what they share with each other divided among them."""
    with idling(FEW) as (_, workers):
        return pss_kilobytes(workers) / len(workers) / 1024


def idle_cores(seconds: float, heard: list[float]) -> float:
    """Give the share of a core that the host and all its processes take while many environments are idle."""
    with idling(MANY) as (server, _), listening(server, heard):
        before, begun = server.cpu_seconds(), time.perf_counter()
        time.sleep(seconds)
        return (server.cpu_seconds() - before) / (time.perf_counter() - begun)


def until(deadline: float, work: Callable[[], object]) -> float:
    """Do a piece of work over and over until a time of the monotonic clock; return the pieces a second."""
    begun = time.monotonic()
    for done in count():
        now = time.monotonic()
        if now >= deadline:
            return done / (now - begun)
        work()
    raise AssertionError


def functions_rate(server: Server, seconds: float) -> float:
    """Give how often a second two functions that compute at the same time do the fixed work, together."""
    deadline = time.monotonic() + seconds

    def caller(function: str) -> float:
        with connected(server) as connection:
            return until(deadline, lambda: call(connection, function, {"times": TURNS})) * TURNS

    with ThreadPoolExecutor(2) as threads:
        return sum(threads.map(caller, ("compute0", "compute1")))


def plain_rate(seconds: float) -> float:
    """Give the same of two plain Python processes, which begin at the same moment."""
    with ExitStack() as stack:
        processes = [stack.enter_context(plain_process(seconds)) for _ in range(2)]
        outputs = [process.stdout for process in processes if process.stdout]
        for output in outputs:
            output.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        return sum(float(output.read()) for output in outputs)


def plain_process(seconds: float) -> subprocess.Popen[str]:
    """Start a process that says when it is ready, and begins when its standard input ends."""
    program = f"from benchmarks.harness.environments import plain; plain({seconds!r})"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def plain(seconds: float) -> None:
    """Do the fixed work in this process once standard input ends, and print how often a second."""

    def work() -> None:
        for _ in range(TURNS):
            busy()

    print("READY", flush=True)
    sys.stdin.read()
    print(until(time.monotonic() + seconds, work) * TURNS, flush=True)


def computing(rounds: int, seconds: float, heard: list[float]) -> tuple[float, ...]:
    """Compare two functions that compute with two plain processes, by turns, all cores free to both."""
    with serving(None) as server:
        for number in range(2):
            deploy(url(server), f"compute{number}", "computing.compute", Timeout=int(DEADLINE))
        functions_rate(server, 0.1)  # both have a process then
        ratios = []
        with listening(server, heard):
            for round_ in range(rounds):
                if round_ % 2:
                    against = plain_rate(seconds)
                    ratios.append(functions_rate(server, seconds) / against)
                else:
                    ours = functions_rate(server, seconds)
                    ratios.append(ours / plain_rate(seconds))
        return tuple(ratios)


def environments(rounds: int, functions: int, seconds: float, say: Callable[[str], None]) -> Environments:
    """Measure all of it.

    :param functions: fresh functions of each kind, whose first calls are taken.
    :param seconds: of idling; a turn of computing takes a fifth of that.
    :raises NotMeasured: a function is refused, or answers wrongly.
    """
    from benchmarks.harness.snapshots import restores  # it measures with what is here

    heard: list[float] = []
    try:
        say("environments: cold starts")
        forked, spawned = cold_starts(functions, heard)
        strict = strict_starts(functions, heard)
        say("environments: memory")
        memory = worker_mb()
        say("environments: two that compute")
        ratios = computing(rounds, seconds / 5, heard)
        say("environments: many that idle")
        idle = idle_cores(seconds, heard)
        say("environments: restores")
        restored = restores(functions, heard)
    except HTTPException as failure:
        raise NotMeasured(f"an invocation failed: {failure!r}") from failure
    return Environments(
        forked_ms=forked,
        spawned_ms=spawned,
        worker_mb=(memory,),
        computing=ratios,
        idle_cores=(idle,),
        restored=restored,
        noise=max(heard),
        strict_ms=strict,
    )
