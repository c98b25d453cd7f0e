"""Measures what it costs to serve code that is edited: how soon a save is served, and what watching takes meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.harness.deploying import OWN_PYTHON
from benchmarks.harness.environments import HELLO, connected
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import cores, pinned
from benchmarks.harness.servers import Contestant, Server, invocations, running

FILES, FOLDERS = 10_000, 100
"""Files that are watched while nothing changes, and the folders that they are in."""

DEADLINE = 20.0
"""Seconds after which a save that is not served is an error."""

PLACED = """
from pathlib import Path

from serverfull.domain.manifests import function_of, parse_manifest

MANIFEST = parse_manifest({{"Runtime": "{runtime}", "Handler": "app.handler"}}, "here")
functions = {{"placed": function_of(MANIFEST, Path(__file__).parent / "placed", region="us-east-1", in_place=True)}}
"""
"""A TARGET with a function that is run as those of folders are, and is not fetched from one."""

HANDLER = "def handler(event, context):\n    return {word!r}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloading:
    """What it costs to serve code that is edited.

    :param in_process_ms: from the save of a module to the end of the first answer of the new code, with ``--reload``.
    :param in_processes_ms: the same of a function in a served folder, whose process is replaced.
    :param watching_cores: share of a core that a host takes for 10,000 watched files, over one that watches two; one
        a round.
    :param fetched: CPU time of a warm call of a function in a served folder, to the same one of a TARGET; one a round.
    """

    in_process_ms: tuple[float, ...]
    in_processes_ms: tuple[float, ...]
    watching_cores: tuple[float, ...]
    fetched: tuple[float, ...]


def host(name: str, *arguments: str) -> Contestant:
    command = ("-m", "serverfull", "serve", *arguments, "--port")
    return Contestant(name=name, command=lambda port, _: [sys.executable, *command, str(port)], path=invocations)


@contextmanager
def serving(name: str, function: str, *arguments: str) -> Iterator[tuple[Server, HTTPConnection]]:
    """Run a host until its function has answered."""
    with running(host(name, *arguments), "", cores()[0]) as server:
        server.wait_listening()
        with connected(server) as connection:
            ask(connection, function)
            yield server, connection


def ask(connection: HTTPConnection, function: str) -> bytes:
    """Invoke a function; gives its answer.

    :raises NotMeasured: it has failed.
    """
    connection.request("POST", invocations(function), b"{}")
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200 or answer.headers.get("X-Amz-Function-Error"):
        raise NotMeasured(f"{function} answers status {answer.status}, body {said[:300]!r}")
    return said


def saved_ms(
    connection: HTTPConnection, function: str, file: Path, text: Callable[[str], str], saves: int
) -> list[float]:
    """Save a file again and again; gives the milliseconds until each is served."""
    taken = []
    for number in range(saves + 1):  # the first one imports what the others need
        word = f"word{number}"
        before = time.perf_counter()
        file.write_text(text(word))
        while ask(connection, function) != f'"{word}"'.encode():
            if time.perf_counter() - before > DEADLINE:
                raise NotMeasured(f"{function} does not serve what was saved {DEADLINE:g} s ago")
        taken.append((time.perf_counter() - before) * 1000)
        time.sleep(0.1)  # for the burst to be over, as a person's next one is not at once
    return taken[1:]


def saves_served(folder: Path, saves: int) -> tuple[list[float], list[float]]:
    """Measure how soon saves are served in process and in processes."""
    module = folder / "module" / "edited_module.py"
    module.parent.mkdir()

    def listed(word: str) -> str:
        return HANDLER.format(word=word) + "\nfunctions = {'edited': handler}\n"

    module.write_text(listed("first"))
    with serving("reload", "edited", f"{module}", "--reload") as (_, connection), pinned(cores()[1]):
        in_process = saved_ms(connection, "edited", module, listed, saves)
    placed = folder / "saved" / "edited" / "app.py"
    placed.parent.mkdir(parents=True)
    placed.write_text(HANDLER.format(word="first"))
    with serving("reload", "edited", f"{placed.parents[1]}/") as (_, connection), pinned(cores()[1]):
        in_processes = saved_ms(connection, "edited", placed, lambda word: HANDLER.format(word=word), saves)
    return in_process, in_processes


def idle_shares(folder: Path, rounds: int, seconds: float) -> list[float]:
    """Compare a host that watches many files with one that watches few, both idle at the same time."""
    few, many = folder / "few", folder / "many"
    for root in (few, many):
        (root / "hello").mkdir(parents=True)
        (root / "hello" / "app.py").write_text(HANDLER.format(word="hello"))
    for number in range(FOLDERS):
        (many / "hello" / f"data{number}").mkdir()
        for file in range(FILES // FOLDERS):
            (many / "hello" / f"data{number}" / f"{file}.txt").write_text("data")
    with serving("few", "hello", f"{few}/") as (small, _), serving("many", "hello", f"{many}/") as (large, _):
        time.sleep(2)  # until both have done what a start leaves for later
        shares = []
        for _ in range(rounds):
            before = large.cpu_seconds(), small.cpu_seconds()
            time.sleep(seconds)
            taken = large.cpu_seconds() - before[0], small.cpu_seconds() - before[1]
            shares.append((taken[0] - taken[1]) / seconds)
        return shares


def fetched_ratios(folder: Path, rounds: int, calls: int) -> list[float]:
    """Compare warm calls of a function that lies in a served folder with the same one of a TARGET, by turns."""
    root = folder / "fetched"
    (root / "placed").mkdir(parents=True)
    (root / "placed" / "app.py").write_text(HANDLER.format(word="hello"))
    (root / "placed" / "function.json").write_text(f'{{"Runtime": "{OWN_PYTHON}"}}')
    target = folder / "fetched_target.py"
    target.write_text(PLACED.format(runtime=OWN_PYTHON).replace('.parent / "placed"', '.parent / "fetched" / "placed"'))
    with ExitStack() as stack:
        fetched = stack.enter_context(serving("fetched", "placed", f"{root}/"))
        static = stack.enter_context(serving("static", "placed", f"{target}"))
        stack.enter_context(pinned(cores()[1]))
        for each in (fetched, static):
            cost(*each, calls)
        ratios = []
        for round_ in range(rounds):
            first, second = (fetched, static) if round_ % 2 else (static, fetched)
            taken = {first[0].port: 0.0, second[0].port: 0.0}
            for _ in range(4):  # the machine changes its speed meanwhile: parts by turns
                for server, connection in (first, second):
                    taken[server.port] += cost(server, connection, calls // 4)
            ratios.append(taken[fetched[0].port] / taken[static[0].port])
        return ratios


def cost(server: Server, connection: HTTPConnection, calls: int) -> float:
    """Give the CPU seconds of all processes of a server for so many warm calls."""
    before = server.cpu_seconds()
    for _ in range(calls):
        if ask(connection, "placed") != HELLO:
            raise NotMeasured("placed does not answer as it should")
    return server.cpu_seconds() - before


def percentile(values: tuple[float, ...], share: float) -> float:
    """Give the value below which that share of the values is, or is it."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def reloading(folder: Path, rounds: int, *, quick: bool, say: Callable[[str], None]) -> Reloading:
    """Measure all of it.

    :raises NotMeasured: something is not served.
    """
    say("reload: saves")
    in_process, in_processes = saves_served(folder, 5 if quick else 100)
    say("reload: watching")
    shares = idle_shares(folder, 1 if quick else 3, 2 if quick else 10)
    say("reload: fetched")
    ratios = fetched_ratios(folder, rounds, 400 if quick else 4000)
    say(f"reload: a save is served after {median(in_process):.0f} ms, in processes after {median(in_processes):.0f}")
    return Reloading(
        in_process_ms=tuple(in_process),
        in_processes_ms=tuple(in_processes),
        watching_cores=tuple(shares),
        fetched=tuple(ratios),
    )
