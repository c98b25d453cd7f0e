"""The servers that are compared: how each is started, asked and stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.harness import machine
from benchmarks.harness.deploying import deploy
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.workloads import Workload

ROOT = Path(__file__).parents[2]
FUNCTIONS = "benchmarks/functions.py:functions"
START_DEADLINE = 20.0
STOP_DEADLINE = 10.0
ASYNC, SYNC, MOCK, BARE, FRAMEWORK = "ours-async", "ours-sync", "ours-mock", "bare", "functions-framework"
WORKER, OFFICIAL, STRICT = "ours-worker", "ours-awslambdaric", "ours-strict"
EVERY = ("hello", "echo", "sleep", "cpu", "log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One server in one configuration.

    :param command: gives the command line for a port and a handler.
    :param path: gives the request path for a handler.
    :param handlers: the handlers that it has.
    :param deploy: takes the server's URL and a handler, and puts that handler there; most servers bring theirs along.
    :param variables: environment variables on top of those that every server gets.
    :param most: connections beyond which it is not measured.
    :param elsewhere: gives the processes of the server that are neither of its session nor descend from it.
    """

    name: str
    command: Callable[[int, str], list[str]]
    path: Callable[[str], str]
    handlers: tuple[str, ...] = EVERY
    deploy: Callable[[str, str], None] = lambda url, handler: None
    variables: Mapping[str, str] = field(default_factory=dict)
    most: int = sys.maxsize
    elsewhere: Callable[[], Sequence[int]] = tuple


def invocations(function: str) -> str:
    """Give the Invoke path of a function."""
    return f"/2015-03-31/functions/{function}/invocations"


def bare(name: str, *flags: str) -> Contestant:
    command = [sys.executable, "-m", "benchmarks.servers.bare", *flags, "--port"]
    return Contestant(name=name, command=lambda port, handler: [*command, str(port)], path=invocations)


def ours(name: str, suffix: str, *flags: str, target: str = FUNCTIONS) -> Contestant:
    command = [sys.executable, "-m", "serverfull", "serve", target, *flags, "--port"]
    return Contestant(
        name=name,
        command=lambda port, handler: [*command, str(port)],
        path=lambda handler: invocations(handler + suffix),
    )


def serverfull(name: str, *flags: str) -> Contestant:
    """Give our server without a target."""
    command = [sys.executable, "-m", "serverfull", "serve", *flags, "--port"]
    return Contestant(name=name, command=lambda port, handler: [*command, str(port)], path=invocations)


def ours_deployed(name: str, **variables: str) -> Contestant:
    """Give our server with functions that are deployed over the API, and so run in processes of their own.

    Each connection makes one more process, and all of them have one core: more of them measure the kernel.

    :param variables: settings of the server.
    """
    return replace(
        serverfull(name, "--state", "memory"),
        handlers=("hello", "log"),
        deploy=lambda url, handler: deploy(url, handler, f"lambda_function.{handler}"),
        variables=variables,
        most=16,
    )


def ours_mock() -> Contestant:
    """Give the server in mock mode; its answers come from a file, so that they are those of the other servers."""
    flags = ("--mock", "--mock-answers", "benchmarks/mock_answers.json")
    return replace(ours(MOCK, "_async", *flags), handlers=("hello",))


def functions_framework() -> Contestant:
    command = [sys.executable, "-m", "functions_framework", "--source", "benchmarks/ff_functions.py"]
    return Contestant(
        name=FRAMEWORK,
        command=lambda port, handler: [*command, "--target", handler, "--port", str(port)],
        path=lambda handler: "/",
        handlers=("hello", "echo", "sleep", "cpu"),
    )


def contestants() -> dict[str, Contestant]:
    """Give every server that the load workloads know, by its name."""
    every = (
        bare(BARE),
        bare("bare-json", "--json"),
        bare("bare-stock-loop", "--stock-loop"),
        ours(ASYNC, "_async"),
        ours(SYNC, "_sync"),
        ours_mock(),
        functions_framework(),
        ours_deployed(WORKER),
        ours_deployed(OFFICIAL, SERVERFULL_EXECUTION__CLIENT="awslambdaric"),
        ours_deployed(STRICT, SERVERFULL_EXECUTION__SANDBOX="strict"),
    )
    return {contestant.name: contestant for contestant in every}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """Give the environment of the servers: ours without settings, and bytecode cached, as where it is installed."""
    ignored = ("SERVERFULL_", "PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ignored)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A contestant that runs, as the leader of a session of its own."""

    contestant: Contestant
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    started: float

    def path(self, handler: str) -> str:
        return self.contestant.path(handler)

    def url(self, handler: str) -> str:
        return f"http://127.0.0.1:{self.port}{self.path(handler)}"

    def pids(self) -> list[int]:
        return [*machine.family(self.process.pid), *self.contestant.elsewhere()]

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds(self.pids())

    def pss_kilobytes(self) -> int:
        return machine.pss_kilobytes(self.pids())

    def last_words(self) -> str:
        """Give the end of what the server wrote, for messages."""
        return self.log.read_text(errors="replace")[-2000:].strip() or "(it wrote nothing)"

    def wait_ready(self, workload: Workload) -> None:
        """Wait until the server gives the right answer to one request.

        :raises NotMeasured: it ended, gave none in time, or does not take what is to be deployed; that is tried once.
        """
        self.wait_listening()
        self.contestant.deploy(f"http://127.0.0.1:{self.port}", workload.handler)
        self._wait(lambda: check(self, workload), f"does not answer {workload.name}")

    def wait_listening(self) -> None:
        """Wait until the server takes connections.

        :raises NotMeasured: it ended, or does not in time.
        """
        self._wait(self._refusal, "does not listen")

    def _refusal(self) -> str:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return ""

    def _wait(self, trouble: Callable[[], str], what: str) -> None:
        """Ask again and again what is wrong, until nothing is."""
        deadline = time.monotonic() + START_DEADLINE
        said = "no answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NotMeasured(f"{self.contestant.name} ended at start: {self.last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                said = trouble()
                if not said:
                    return
            time.sleep(0.02)
        raise NotMeasured(f"{self.contestant.name} {what}: {said}\n{self.last_words()}")

    def stop(self) -> None:
        """Ask the server to end, and end what is left of its session after a while."""
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            print(f"{self.contestant.name} did not end within {STOP_DEADLINE:g} s of SIGTERM", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def check(server: Server, workload: Workload) -> str:
    """Send one request; return what is wrong with the answer, or nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        path = server.path(workload.handler)
        connection.request("POST", path, workload.body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200 or answer.headers.get("X-Amz-Function-Error") or not workload.is_right(body):
        return f"status {answer.status}, body {body[:300]!r}"
    return ""


@contextmanager
def running(contestant: Contestant, handler: str, core: int | None) -> Iterator[Server]:
    """Run a server on a core (None: all) with its output going to a file, and stop it in the end."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="serverfull-bench-") as folder:
        log = Path(folder, "output")
        with log.open("wb") as output, machine.pinned(core):
            started = time.perf_counter()
            process = subprocess.Popen(
                contestant.command(port, handler),
                cwd=ROOT,
                env={**environment(), **contestant.variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(contestant=contestant, process=process, port=port, log=log, started=started)
        try:
            yield server
        finally:
            server.stop()
