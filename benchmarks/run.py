"""Measures the server against a bare aiohttp server and functions-framework; ``make bench`` runs this.

See benchmarks/README.md for what is measured and how to read it. Linux only. Timing never fails the run: the exit code
is 1 only where something could not be measured or was answered with errors.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, also where the project is not installed

from benchmarks.harness.containers import Containers, NoEngine, containers
from benchmarks.harness.environments import Environments, environments
from benchmarks.harness.events import Events, events
from benchmarks.harness.figures import Results, every_sample, faults
from benchmarks.harness.load import NotMeasured, require_wrk
from benchmarks.harness.machine import cores
from benchmarks.harness.management import Management, management
from benchmarks.harness.reloading import Reloading, reloading
from benchmarks.harness.report import machine_facts, print_report, write_json
from benchmarks.harness.rounds import Plan, Sample, measure
from benchmarks.harness.servers import (
    ASYNC,
    BARE,
    FRAMEWORK,
    MOCK,
    OFFICIAL,
    STRICT,
    SYNC,
    WORKER,
    bare,
    contestants,
    ours,
)
from benchmarks.harness.starts import FunctionMemory, Start, function_memory, starts
from benchmarks.harness.together import BUSY_LEVELS, WORKLOADS, Pair, measure_together
from benchmarks.harness.workloads import workloads
from serverfull.runtimes.process.means import probe_strict

EXTRAS = ("together", "workers", "start", "memory", "management", "events", "environments", "containers", "reload")
DEFAULT_SERVERS = (BARE, ASYNC, SYNC, MOCK, WORKER, OFFICIAL, *(() if probe_strict().why else (STRICT,)), FRAMEWORK)


def names(known: Sequence[str]) -> type[tuple[str, ...]]:
    """Make the type of an option that takes known names, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return chosen

    return parse  # type: ignore[return-value]


def arguments() -> argparse.Namespace:
    every = (*workloads(), *EXTRAS)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one round of one second: shows that all works, no more")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=int, default=1, help="whole seconds of one measurement (default 1)")
    parser.add_argument("--starts", type=int, default=9, help="starts of each server (default 9)")
    parser.add_argument("--only", type=names(every), default=every, metavar="NAMES", help=",".join(every))
    parser.add_argument("--levels", default=(1, 16, 64), type=lambda text: tuple(int(n) for n in text.split(",")))
    known = tuple(contestants())
    parser.add_argument("--servers", type=names(known), default=DEFAULT_SERVERS, metavar="NAMES", help=",".join(known))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.starts = 1, 1, 3
    return options


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def say_method(options: argparse.Namespace) -> None:
    facts = ", ".join(f"{name} {value}" for name, value in machine_facts().items())
    server_core, wrk_core = cores()
    print(f"{facts}\nserver on core {server_core}, wrk on core {wrk_core}")
    print(f"medians over {options.rounds} rounds of {options.seconds} s; ratios are taken within a round, to bare")
    if server_core == wrk_core:
        print("ONE CORE ONLY: wrk takes its time from the server, so every ratio is nearer to 1 than it should be")
    print("Each server's output (with the functions' log) goes to a file, written for real.")


def measure_workers(options: argparse.Namespace, plan: Plan, failures: list[str]) -> list[Sample]:
    """Compare one process with two, ours and bare, with all cores shared by the server and wrk."""
    servers = [bare("bare x1"), bare("bare x2", "--processes", "2")]
    if any(name.startswith("ours") for name in options.servers):
        servers += [ours("ours x1", "_async"), ours("ours x2", "_async", "--workers", "2")]
    wide = replace(plan, levels=(64,), pins=(None, None))
    return measure(servers, [workloads()["hello"]], wide, say, failures)


def measure_side_by_side(options: argparse.Namespace, plan: Plan, failures: list[str]) -> list[Pair]:
    """Compare hello, log and cpu side by side; fewer of them where ``--only`` names one."""
    named = [name for name in WORKLOADS if name in options.only] or WORKLOADS
    servers = [contestants()[name] for name in options.servers]
    levels = tuple(level for level in options.levels if level in BUSY_LEVELS)
    longer = replace(plan, levels=levels, seconds=plan.seconds if options.quick else 2 * plan.seconds)
    return measure_together(servers, [workloads()[name] for name in named], longer, say, failures) if levels else []


def measure_starts(options: argparse.Namespace, failures: list[str]) -> list[Start]:
    wanted = [name for name in options.servers if name in ("bare", "ours-async")]
    known = contestants()
    return starts([known[name] for name in wanted], workloads()["hello"], options.starts, say, failures)


def measure_memory(options: argparse.Namespace, folder: Path, failures: list[str]) -> FunctionMemory | None:
    if not any(name.startswith("ours") for name in options.servers):
        return None
    try:
        return function_memory(folder, 1 if options.quick else 3, say)
    except (NotMeasured, OSError) as failure:
        failures.append(f"memory of functions: {failure}")
        return None


def measure_management(options: argparse.Namespace, folder: Path, failures: list[str]) -> Management | None:
    try:
        return management(folder, 2 if options.quick else options.rounds, 50 if options.quick else 200, say)
    except (NotMeasured, OSError) as failure:
        failures.append(f"management: {failure}")
        return None


def measure_events(options: argparse.Namespace, folder: Path, failures: list[str]) -> Events | None:
    try:
        return events(folder, 1 if options.quick else options.rounds, options.seconds, say)
    except (NotMeasured, OSError) as failure:
        failures.append(f"events: {failure}")
        return None


def measure_environments(options: argparse.Namespace, failures: list[str]) -> Environments | None:
    rounds, functions, seconds = (1, 3, 2) if options.quick else (options.rounds, 20, 10)
    try:
        return environments(rounds, functions, seconds, say)
    except (NotMeasured, OSError) as failure:
        failures.append(f"environments: {failure}")
        return None


def measure_containers(options: argparse.Namespace, plan: Plan, failures: list[str]) -> Containers | None:
    """Measure what runs in containers; where nothing makes any, that is said and is no failure."""
    try:
        return containers(plan, 3 if options.quick else 20, workloads()["hello"], say, failures)
    except NoEngine as none:
        say(f"containers are not measured: {none}")
        return None


def measure_reloading(options: argparse.Namespace, folder: Path, failures: list[str]) -> Reloading | None:
    try:
        return reloading(folder, 1 if options.quick else options.rounds, quick=options.quick, say=say)
    except (NotMeasured, OSError) as failure:
        failures.append(f"reload: {failure}")
        return None


def run(options: argparse.Namespace, folder: Path) -> Results:
    """Measure what was asked for."""
    plan = Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        warm_up=0 if options.quick else 1,
        levels=options.levels,
        folder=folder,
        pins=cores(),
    )
    failures: list[str] = []
    chosen = [workload for name, workload in workloads().items() if name in options.only]
    servers = [contestants()[name] for name in options.servers]
    return Results(
        samples=measure(servers, chosen, plan, say, failures),
        together=measure_side_by_side(options, plan, failures) if "together" in options.only else [],
        workers=measure_workers(options, plan, failures) if "workers" in options.only else [],
        starts=measure_starts(options, failures) if "start" in options.only else [],
        memory=measure_memory(options, folder, failures) if "memory" in options.only else None,
        management=measure_management(options, folder, failures) if "management" in options.only else None,
        events=measure_events(options, folder, failures) if "events" in options.only else None,
        environments=measure_environments(options, failures) if "environments" in options.only else None,
        containers=measure_containers(options, plan, failures) if "containers" in options.only else None,
        reloading=measure_reloading(options, folder, failures) if "reload" in options.only else None,
        failures=failures,
    )


def main() -> int:
    options = arguments()
    require_wrk()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no server is left behind
    say_method(options)
    with tempfile.TemporaryDirectory(prefix="serverfull-bench-") as folder:
        results = run(options, Path(folder))
    print_report(results)
    if options.json:
        write_json(results, options.json)
    return 1 if results.failures or faults(every_sample(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
