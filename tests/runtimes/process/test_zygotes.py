"""The zygote: what it starts, what is left behind, and what becomes of it when others end. With real processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.runtimes.process.orders import LaunchFailed, Order
from serverfull.runtimes.process.zygotes import Zygote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DEADLINE = 20.0


class Log:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


@pytest.fixture
def log() -> Log:
    return Log()


INTERPRETERS = [
    Path(sys.executable),
    *(
        path
        for path in (Path("~/.pyenv/versions").expanduser() / v / "bin/python" for v in ("3.8.18", "3.13.0"))
        if path.exists()
    ),
]


@pytest.fixture(params=INTERPRETERS, ids=lambda path: path.parent.parent.name)
def interpreter(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
async def zygote(log: Log) -> AsyncIterator[Zygote]:
    made = Zygote(Path(sys.executable), log)
    yield made
    await made.aclose()


class Output:
    """The log pipe of a process."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()

    async def rest(self) -> str:
        """Close our copy of the process's end, and read until all others are closed."""
        os.close(self.writer)
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._read), DEADLINE)
        finally:
            os.close(self._reader)

    def _read(self) -> str:
        read = b""
        while data := os.read(self._reader, 65536):
            read += data
        return read.decode()

    async def line(self) -> str:
        read = b""
        while not read.endswith(b"\n"):
            read += await asyncio.wait_for(asyncio.to_thread(os.read, self._reader, 1), DEADLINE)
        return read.decode().strip()


@pytest.fixture
def output() -> Output:
    return Output()


def order(log: int, *command: str, **environment: str) -> Order:
    known = {"PATH": os.environ["PATH"], **environment}
    return Order(environment=known, cwd=Path("/"), command=command, log=log)


def python(log: int, code: str) -> Order:
    return order(log, sys.executable, "-c", code)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_zygote(pid: int) -> bool:
    return b"zygote" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what has no event to wait for."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - there is none, that is the point
            await asyncio.sleep(0.005)


async def ended(launched: Any) -> Any:
    return await asyncio.wait_for(asyncio.shield(launched.exited), DEADLINE)


# ------------------------------------------------------------------------------------------------------------- launches


async def test_a_command_runs_with_its_own_environment_folder_and_streams(
    interpreter: Path, log: Log, output: Output, tmp_path: Path
) -> None:
    zygote = Zygote(interpreter, log)
    code = (
        "import json, os, sys\n"
        "seen = [dict(os.environ), os.getcwd(), sys.stdin.read(), os.getsid(0) == os.getpid()]\n"
        "print(json.dumps([*seen, os.listdir('/proc/self/fd')]))\n"
        "sys.stderr.write('to stderr')\n"
        "sys.exit(3)"
    )
    command = [sys.executable, "-S", "-c", code]
    try:
        launched = await zygote.launch(
            Order(environment={"A": "grüß"}, cwd=tmp_path, command=command, log=output.writer)
        )
        end = await ended(launched)
        said = await output.rest()
    finally:
        await zygote.aclose()
    assert (os.WEXITSTATUS(end.status), end.max_rss_kb > 1000) == (3, True)
    line, _, rest = said.partition("\n")
    environment, cwd, stdin, leads, descriptors = json.loads(line)
    environment.pop("LC_CTYPE", None)
    assert environment == {"A": "grüß"}
    assert (cwd, stdin, leads, rest) == (str(tmp_path), "", True, "to stderr")
    assert len(descriptors) == 4  # and the folder that is listed


@pytest.mark.parametrize(
    ("code", "status"),
    [("import os; os.abort()", signal.SIGABRT), ("import os; os.kill(os.getpid(), 9)", signal.SIGKILL)],
)
async def test_the_status_says_which_signal_ended_a_process(
    code: str, status: int, zygote: Zygote, output: Output
) -> None:
    end = await ended(await zygote.launch(python(output.writer, code)))
    assert os.WTERMSIG(end.status) == status
    await output.rest()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"command": ["surely-no-such-program"]}, "fork/exec surely-no-such-program: no such file"),
        ({"cwd": Path("/surely/not/there")}, "No such file"),
        ({"command": ["/etc/passwd"]}, "fork/exec /etc/passwd: permission denied"),
        ({"command": None, "client": {"socket": "/surely/not/there", "handler": "a.b"}}, "No such file"),
        ({"environment": {"A=": "b\0"}}, "null byte"),
        ({"environment": {"A": "x" * 2_000_000}}, "too long"),
        ({"confinement": {"groups": ["/surely/not/there"]}}, "not/there"),
    ],
    ids=["program", "folder", "not executable", "socket", "environment", "too much", "limits"],
)
async def test_what_cannot_be_started_is_said_and_leaves_nothing(
    change: dict[str, Any], why: str, zygote: Zygote, output: Output
) -> None:
    good: dict[str, Any] = {"environment": {"PATH": os.environ["PATH"]}, "cwd": Path("/"), "command": ["true"]}
    with pytest.raises(LaunchFailed, match=why):
        await zygote.launch(Order(**{**good, **change}, log=output.writer))
    assert (await ended(await zygote.launch(Order(**good, log=output.writer)))).status == 0
    assert await output.rest() == ""
    await until(lambda: not children(zygote.pid))
    assert not zygote._running._launches


async def test_an_interpreter_that_is_none_is_refused_with_its_own_words(log: Log, tmp_path: Path) -> None:
    for content, why in (("#!/bin/sh\necho not today >&2\nexit 4\n", "not today"), (None, "does not start")):
        fake = tmp_path / "python"
        if content is not None:
            fake.write_text(content)
            fake.chmod(0o755)
        else:
            fake.unlink()
        zygote = Zygote(fake, log)
        with pytest.raises(LaunchFailed, match=why):
            await zygote.start()
        await zygote.aclose()


async def test_a_closed_zygote_starts_nothing(zygote: Zygote, output: Output) -> None:
    await zygote.start()
    await zygote.aclose()
    await zygote.aclose()
    with pytest.raises(LaunchFailed):
        await zygote.launch(order(output.writer, "true"))
    await output.rest()


async def test_many_launches_at_once_are_all_answered(zygote: Zygote, output: Output) -> None:
    async def one(number: int) -> int:
        launched = await zygote.launch(order(output.writer, "sh", "-c", f"exit {number % 100}"))
        return os.WEXITSTATUS((await ended(launched)).status)

    assert await asyncio.gather(*(one(n) for n in range(200))) == [n % 100 for n in range(200)]
    await output.rest()


@pytest.mark.slow
async def test_a_thousand_launches_leave_no_descriptor_and_no_process_behind(zygote: Zygote, output: Output) -> None:
    async def one() -> None:
        launched = await zygote.launch(order(output.writer, "true"))
        await ended(launched)

    await one()
    gc.collect()
    before = descriptors(os.getpid()), descriptors(zygote.pid), memory_kb(zygote.pid)
    for _ in range(50):
        await asyncio.gather(*(one() for _ in range(20)))
    gc.collect()
    assert (descriptors(os.getpid()), descriptors(zygote.pid)) == before[:2]
    assert memory_kb(zygote.pid) - before[2] < 512
    assert not children(zygote.pid)
    assert not zygote._running._launches
    await output.rest()


async def test_a_cancelled_launch_leaves_no_process(zygote: Zygote, output: Output) -> None:
    await zygote.start()
    first = zygote.pid
    for _ in range(20):
        task = asyncio.create_task(zygote.launch(order(output.writer, "sleep", "1000")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not children(zygote.pid) and not zygote._running._launches)
    assert not zygote._running._killing
    assert zygote.pid == first
    await output.rest()


def descriptors(pid: int | None) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kb(pid: int | None) -> int:
    return next(
        int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line
    )


def children(pid: int | None) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "Z" not in line.split()[1]]


# ---------------------------------------------------------------------------------------------------------------- kills

TREE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = []
for kind in ("plain", "session", "daemon"):
    reading, writing = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind != "plain":
            os.setsid()
        if kind == "daemon" and os.fork():
            os._exit(0)
        os.write(writing, str(os.getpid()).encode())
        time.sleep(1000)
    pids.append(os.read(reading, 20).decode())
print(os.getpid(), *pids, flush=True)
"""


async def test_a_kill_reaches_the_whole_tree_whatever_it_ignores(zygote: Zygote, output: Output) -> None:
    launched = await zygote.launch(python(output.writer, TREE + "time.sleep(1000)"))
    pids = [int(word) for word in (await output.line()).split()]
    assert len(pids) == 4
    assert all(map(alive, pids))
    launched.kill()
    assert (await ended(launched)).status == signal.SIGKILL
    await until(lambda: not any(map(alive, pids)))
    launched.kill()  # once more does nothing
    await output.rest()


async def test_what_a_process_leaves_behind_is_killed_when_it_ends_and_others_keep_theirs(
    zygote: Zygote, output: Output
) -> None:
    staying = await zygote.launch(python(output.writer, TREE + "time.sleep(1000)"))
    kept = [int(word) for word in (await output.line()).split()]
    going = await zygote.launch(python(output.writer, TREE))
    left = [int(word) for word in (await output.line()).split()]
    await ended(going)
    await until(lambda: not any(map(alive, left)))
    assert all(map(alive, kept))  # its daemon too, which has been the zygote's child all the time
    staying.kill()
    await until(lambda: not any(map(alive, kept)))
    await output.rest()


BOMB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(7):
    os.fork()
    os.setsid() if os.getsid(0) != os.getpid() else None
sys.stdout.write("x")
sys.stdout.flush()
while True:
    time.sleep(0.001)
"""


async def test_a_fork_bomb_does_not_hurt_the_zygote(zygote: Zygote, output: Output) -> None:
    launched = await zygote.launch(python(output.writer, BOMB))
    read = 0
    while read < 128:
        read += len(await asyncio.wait_for(asyncio.to_thread(os.read, output._reader, 128), DEADLINE))
    before = zygote.pid
    launched.kill()
    await ended(launched)
    await until(lambda: not children(before))
    assert (await ended(await zygote.launch(order(output.writer, "true")))).status == 0
    assert zygote.pid == before
    await output.rest()


# ----------------------------------------------------------------------------------------------------------------- ends


async def test_closing_kills_everything(log: Log, output: Output) -> None:
    zygote = Zygote(Path(sys.executable), log)
    launched = await zygote.launch(python(output.writer, TREE + "time.sleep(1000)"))
    pids = [int(word) for word in (await output.line()).split()]
    pid = zygote.pid
    assert pid is not None
    await zygote.aclose()
    assert not any(map(alive, [pid, *pids]))
    assert launched.exited.done()
    assert log.lines == []
    await output.rest()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_dead_zygote_takes_its_processes_along_and_is_replaced(
    number: int, zygote: Zygote, log: Log, output: Output
) -> None:
    launched = await zygote.launch(order(output.writer, "sleep", "1000"))
    first = zygote.pid
    assert first is not None
    os.kill(first, number)
    assert (await ended(launched)).status == signal.SIGKILL
    await until(lambda: not alive(launched.pid))
    again = await zygote.launch(order(output.writer, "true"))
    assert (await ended(again)).status == 0
    assert zygote.pid != first
    assert log.events() == ["zygote ended"]
    await output.rest()


async def test_a_launch_that_meets_a_dying_zygote_is_tried_with_another(zygote: Zygote, output: Output) -> None:
    for _ in range(10):
        await zygote.start()
        task = asyncio.create_task(zygote.launch(order(output.writer, "sleep", "1000")))
        await asyncio.sleep(0)
        os.kill(zygote.pid or 0, signal.SIGKILL)
        launched = await task
        launched.kill()
        await ended(launched)
    await output.rest()


async def test_a_zygote_that_does_not_answer_is_killed_and_replaced(
    zygote: Zygote, log: Log, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serverfull.runtimes.process.zygotes.ANSWER_TIMEOUT", 0.2)
    launched = await zygote.launch(order(output.writer, "sleep", "1000"))
    os.kill(zygote.pid or 0, signal.SIGSTOP)
    launched.kill()
    assert (await ended(launched)).status == signal.SIGKILL
    await until(lambda: not alive(launched.pid))
    assert log.events() == ["zygote does not answer", "zygote ended"]
    assert (await ended(await zygote.launch(order(output.writer, "true")))).status == 0
    await output.rest()


async def test_launches_that_a_zygote_does_not_answer_go_to_another_one(
    zygote: Zygote, log: Log, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    await zygote.start()
    monkeypatch.setattr("serverfull.runtimes.process.zygotes.ANSWER_TIMEOUT", 3.0)
    monkeypatch.setattr("serverfull.runtimes.process.zygotes.SIGN_TIMEOUT", 0.5)
    stopped = zygote.pid or 0
    os.kill(stopped, signal.SIGSTOP)
    launched = await asyncio.gather(*(zygote.launch(order(output.writer, "true")) for _ in range(3)))
    assert [(await ended(each)).status for each in launched] == [0, 0, 0]
    assert not alive(stopped)
    assert log.events() == ["zygote does not answer", "zygote ended"]
    await output.rest()


HOST = """
import asyncio, os, sys
from pathlib import Path
from serverfull.runtimes.process.orders import Order
from serverfull.runtimes.process.zygotes import Zygote

async def main():
    zygote = Zygote(Path(sys.executable), None)
    code = sys.argv[1]
    await zygote.launch(Order(environment=dict(os.environ), cwd=Path("/"), command=[sys.executable, "-c", code], log=1))
    print(zygote.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def started_host(code: str, launched: str, words: int) -> AsyncIterator[tuple[Any, list[int]]]:
    """Start a process with a zygote that runs code; gives it and the process ids that both have printed."""
    command = [sys.executable, "-W", "ignore", "-c", code, launched]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as host:  # noqa: ASYNC220 - it takes no time
        assert host.stdout is not None
        try:
            said: list[str] = []
            while len(said) < words:
                said += (await asyncio.wait_for(asyncio.to_thread(host.stdout.readline), DEADLINE)).split()
            pids = [int(word) for word in said]
            assert all(map(alive, pids))
            yield host, pids
        finally:
            host.kill()


async def test_a_process_dies_with_its_zygote_though_nobody_is_there_to_kill_it() -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
    async with started_host(HOST, code, words=2) as (host, pids):
        host.send_signal(signal.SIGSTOP)
        for pid in filter(is_zygote, pids):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_everything_dies_with_the_host(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    code = HOST if loop == "asyncio" else "import uvloop; uvloop.install()\n" + HOST
    async with started_host(code, TREE + "time.sleep(1000)", words=5) as (host, pids):
        host.kill()
        await until(lambda: not any(map(alive, pids)))
