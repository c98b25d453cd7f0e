"""Measures what does not need load: the time to the first answer, and memory."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import cores, pinned
from benchmarks.harness.servers import START_DEADLINE, Contestant, Server, ours, running
from benchmarks.harness.workloads import Workload

MANY = 1000
"""Functions that the larger module has beyond the smaller one's single function."""

SETTLE = 0.5
"""Seconds that a server is left alone before its memory is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of one server.

    :param first_answer: seconds from process start to the end of the first right answer.
    :param pss_kb: proportional set size after that answer, the server idle.
    """

    round: int
    server: str
    first_answer: float
    pss_kb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionMemory:
    """KB of PSS that each further in-process function costs, loaded and after it was invoked once; a value a run."""

    loaded_kb: tuple[float, ...]
    invoked_kb: tuple[float, ...]


def _ask(server: Server, request: bytes) -> bytes:
    """Send a request over a new connection and read to its end; nothing where there is no listener yet."""
    with socket.socket() as connection:
        connection.settimeout(START_DEADLINE)
        try:
            connection.connect(("127.0.0.1", server.port))
        except ConnectionRefusedError:
            return b""
        connection.sendall(request)
        answer = b""
        while received := connection.recv(65536):
            answer += received
        return answer


def first_answer(server: Server, workload: Workload) -> float:
    """Try every millisecond until the server answers; return the seconds since its process was started."""
    head = f"POST {server.path(workload.handler)} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n"
    request = f"{head}Content-Length: {len(workload.body)}\r\n\r\n".encode() + workload.body
    return _first(server, request, workload.is_right)


def first_listing(server: Server) -> float:
    """Do the same with ListFunctions."""
    head = f"GET /2015-03-31/functions/ HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
    return _first(server, head.encode(), lambda body: body.startswith(b'{"'))


def _first(server: Server, request: bytes, is_right: Callable[[bytes], bool]) -> float:
    while time.perf_counter() - server.started < START_DEADLINE:
        answer = _ask(server, request)
        if answer:
            seconds = time.perf_counter() - server.started
            if not answer.startswith(b"HTTP/1.1 200") or not is_right(answer.partition(b"\r\n\r\n")[2]):
                raise NotMeasured(f"{server.contestant.name} answers the first request wrongly: {answer[:300]!r}")
            return seconds
        if server.process.poll() is not None:
            raise NotMeasured(f"{server.contestant.name} ended at start: {server.last_words()}")
        time.sleep(0.001)
    raise NotMeasured(f"{server.contestant.name} gave no answer within {START_DEADLINE:g} s: {server.last_words()}")


def start(contestant: Contestant, workload: Workload, round_: int) -> Start:
    """Start one server, take its time and its memory, and stop it."""
    server_core, our_core = cores()
    with running(contestant, workload.handler, server_core) as server:
        with pinned(our_core):
            seconds = first_answer(server, workload)
        time.sleep(SETTLE)
        return Start(round=round_, server=contestant.name, first_answer=seconds, pss_kb=server.pss_kilobytes())


def starts(
    servers: Sequence[Contestant], workload: Workload, runs: int, say: Callable[[str], None], failures: list[str]
) -> list[Start]:
    """Start the servers by turns; the first turn only fills the file caches and the bytecode caches."""
    taken: list[Start] = []
    broken: set[str] = set()
    for round_ in range(runs + 1):
        say(f"start {round_}/{runs}")
        for contestant in servers:
            if contestant.name in broken:
                continue
            try:
                one = start(contestant, workload, round_)
            except (NotMeasured, OSError) as failure:
                broken.add(contestant.name)
                failures.append(f"start of {contestant.name}: {failure}")
            else:
                taken.extend([one] if round_ else [])
    return taken


def module_of(functions: int) -> str:
    """Write a module that holds that many small handlers, each with code of its own."""
    handlers = [
        f'def f{n}(event, context):\n    return "hello" if event is not {n} else {n}\n' for n in range(functions)
    ]
    names = ", ".join(f'"f{n}": f{n}' for n in range(functions))
    return "\n\n".join([*handlers, f"functions = {{{names}}}\n"])


def _invoke_each(server: Server, functions: int) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        for number in range(functions):
            connection.request("POST", server.path(f"f{number}"), b"{}")
            answer = connection.getresponse()
            if answer.read() != b'"hello"':
                raise NotMeasured(f"function {number} of {functions} answers wrongly: status {answer.status}")


def _memory_with(functions: int, folder: Path) -> tuple[int, int]:
    """Serve a module of that many functions; return KB after the first invoke, and after every one was invoked."""
    module = folder / f"functions_{functions}.py"
    module.write_text(module_of(functions))
    contestant = ours(f"ours with {functions} functions", "", target=f"{module}:functions")
    with running(contestant, "f0", cores()[0]) as server:
        server.wait_ready(Workload(name="f0", handler="f0", body=b"{}", expected="hello"))
        time.sleep(SETTLE)
        loaded = server.pss_kilobytes()
        _invoke_each(server, functions)
        time.sleep(SETTLE)
        return loaded, server.pss_kilobytes()


def function_memory(folder: Path, runs: int, say: Callable[[str], None]) -> FunctionMemory:
    """Compare a server of one function with one of a thousand more.

    :raises NotMeasured: a server does not start or answers wrongly.
    """
    loaded, invoked = [], []
    for run in range(runs):
        say(f"memory {run + 1}/{runs}")
        few, many = _memory_with(1, folder), _memory_with(1 + MANY, folder)
        loaded.append((many[0] - few[0]) / MANY)
        invoked.append((many[1] - few[1]) / MANY)
    return FunctionMemory(loaded_kb=tuple(loaded), invoked_kb=tuple(invoked))
