"""Installers as processes: ended at their deadline with all that they have started, held to a size, and quoted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from serverfull.dependencies.running import Failed, Work, redactor, run

DEADLINE = 20.0

FAMILY = """
import os, subprocess, sys, time
names = sys.argv[1:]
code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(1000)"
children = [subprocess.Popen([sys.executable, "-S", "-c", code, name], start_new_session=True) for name in names]
while not all(os.path.exists(name) and open(name).read() for name in names):
    time.sleep(0.005)
print("all are there", flush=True)
"""
"""Starts processes in sessions of their own, which a process group's signal does not reach."""


def work(folder: Path, code: str, *args: str, timeout: float = DEADLINE, megabytes: int = 64) -> Work:
    command = [sys.executable, "-I", "-S", "-c", code, *args]
    return Work(command, {"PATH": os.defpath}, folder, folder, timeout, megabytes << 20)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(folder: Path, names: Sequence[str]) -> list[int]:
    return [int((folder / name).read_text()) for name in names]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.005)


async def test_what_an_installer_says_is_given_back(tmp_path: Path) -> None:
    assert await run(work(tmp_path, "import os; print('done', os.getcwd(), sorted(os.environ))")) == (
        f"done {tmp_path} ['LC_CTYPE', 'PATH']\n" if sys.flags.utf8_mode == 0 else ""
    )


async def test_an_exit_code_is_a_failure_with_the_last_that_was_said(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        await run(work(tmp_path, "import sys; print('x' * 100_000); print('the end'); sys.exit(3)"))
    assert (caught.value.code, caught.value.why) == (3, "failed with exit code 3")
    assert caught.value.output.endswith("\nthe end\n")
    assert len(caught.value.output) <= 16_384


async def test_what_an_installer_leaves_behind_is_killed(tmp_path: Path) -> None:
    assert await run(work(tmp_path, FAMILY, "a", "b")) == "all are there\n"
    assert not any(map(alive, pids(tmp_path, "ab")))


async def test_at_its_deadline_an_installer_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="was not done within 1 s"):
        await run(work(tmp_path, FAMILY + "time.sleep(1000)", "a", timeout=1.0))
    assert not any(map(alive, pids(tmp_path, "a")))


async def test_an_installer_that_is_not_waited_for_any_more_is_ended(tmp_path: Path) -> None:
    running = asyncio.create_task(run(work(tmp_path, FAMILY + "time.sleep(1000)", "a")))
    await until((tmp_path / "a").exists)
    await until(lambda: (tmp_path / "a").read_text())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not any(map(alive, pids(tmp_path, "a")))


async def test_all_of_it_ends_with_a_host_that_is_killed(tmp_path: Path) -> None:
    host = """
import asyncio, sys
from pathlib import Path
from serverfull.dependencies.running import Work, run
folder = Path(sys.argv[1])
command = [sys.executable, "-I", "-S", "-c", sys.argv[2] + "time.sleep(1000)", "a", "b"]
asyncio.run(run(Work(command, {}, folder, folder, 1000.0, 1 << 30)))
"""
    process = subprocess.Popen([sys.executable, "-c", host, str(tmp_path), FAMILY])  # noqa: ASYNC220
    try:
        await until(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    await until(lambda: not any(map(alive, pids(tmp_path, "ab"))))


async def test_an_installer_that_fills_the_disk_is_ended(tmp_path: Path) -> None:
    code = """
import itertools
for number in itertools.count():
    with open(f"file{number}", "wb") as file:
        file.write(bytes(1 << 20))
    if number == 20:
        __import__("time").sleep(1000)
"""
    with pytest.raises(Failed, match="took more than 8 MB of the disk"):
        await run(work(tmp_path, code, megabytes=8))


async def test_no_file_may_have_more_than_all_of_them_together(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        await run(work(tmp_path, "open('large', 'wb').truncate(9 << 20)", megabytes=8))
    assert "File too large" in caught.value.output


async def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed) as caught:
        await run(Work(["/nonexistent/uv"], {}, tmp_path, tmp_path, DEADLINE, 1 << 20))
    assert (caught.value.code, caught.value.output) == (126, "/nonexistent/uv: No such file or directory\n")


async def test_an_installer_that_ignores_signals_and_forks_on_is_ended_too(tmp_path: Path) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("begun", "w").close()
until = time.monotonic() + 60
while time.monotonic() < until:
    if os.fork():
        os._exit(0)
    os.setsid()
"""
    started = time.monotonic()
    with suppress(Failed):
        await run(work(tmp_path, code, timeout=0.5))
    assert (tmp_path / "begun").exists()
    assert time.monotonic() - started < DEADLINE
    await until(lambda: not _running('open("begun"'))


def _running(part: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if part.encode() in path.read_bytes() and path.parent.name != str(os.getpid()):
                return True
    return False


def test_secrets_of_indexes_are_taken_out_of_what_is_shown() -> None:
    variables = {
        "PIP_INDEX_URL": "https://reader:s3cret%21word@index.example/simple",
        "UV_INDEX_PRIVATE_PASSWORD": "another-secret",
        "PATH": "/usr/bin",
    }
    redact = redactor(variables, ["https://token-as-name@other.example/"])
    text = redact(
        "Looking in https://reader:s3cret%21word@index.example/simple\n"
        "\x1b[31mERROR\x1b[0m: s3cret!word another-secret\n\n"
        "https://someone:else@third.example/x token-as-name /usr/bin\n"
    )
    assert text == (
        "Looking in https://****@index.example/simple\nERROR: **** ****\nhttps://****@third.example/x **** /usr/bin"
    )


def test_only_the_last_lines_are_shown() -> None:
    text = redactor({}, [])("".join(f"line {number}\n" for number in range(1000)))
    assert text.splitlines() == [f"line {number}" for number in range(980, 1000)]
    assert len(redactor({}, [])("x" * 100_000)) == 2_000
