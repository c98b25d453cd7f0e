"""The functions' log in files: how they fill up, who writes them together, and how they are read meanwhile."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serverfull.errors import ConfigurationError
from serverfull.interfaces import LogRecord
from serverfull.invocation.files import FileLog, FileSink

if TYPE_CHECKING:
    from collections.abc import Iterator

DEADLINE = 20.0


class HostLog:
    """Keeps the errors that a sink says in the host's log."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append({"event": event, **fields})


def record(text: str, function: str = "hello", at: float = 1_700_000_000.5) -> LogRecord:
    return LogRecord(function, "request-1", "function", text, at)


def write(folder: Path, *records: LogRecord, size: int = 1_000_000, count: int = 3) -> FileSink:
    """Write records one after the other, without a thread."""
    sink = FileSink(folder, size, count, HostLog())
    for one in records:
        assert sink._write_batch([one]) == 0
    return sink


def messages(lines: Any) -> list[str]:
    return [json.loads(line)["message"] for line in lines]


def test_each_function_has_a_file_of_lines_of_json(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    sink = FileSink(folder, 1_000_000, 3, HostLog())
    sink.start()
    for number in range(100):
        sink.write(record(f"{number}\n", "hello" if number % 2 else "other"))
    sink.close()
    assert messages((folder / "hello.log").read_text().splitlines()) == [str(n) for n in range(1, 100, 2)]
    assert messages(FileLog(folder).lines("other")[0]) == [str(n) for n in range(0, 100, 2)]
    assert folder.stat().st_mode & 0o77 == (folder / "hello.log").stat().st_mode & 0o77 == 0


def test_full_files_are_renamed_and_the_oldest_go(tmp_path: Path) -> None:
    write(tmp_path, *(record(f"{number:04}\n") for number in range(200)), size=4096, count=3)
    files = sorted(path.name for path in tmp_path.glob("hello*"))
    assert files == ["hello.log", "hello.log.1", "hello.log.2"]
    assert all(path.stat().st_size <= 4096 for path in tmp_path.glob("hello*"))
    kept = messages(FileLog(tmp_path).lines("hello")[0])
    assert kept == [f"{number:04}" for number in range(200 - len(kept), 200)]
    assert 2 * 4096 // 130 < len(kept) < 3 * 4096 // 100


def test_one_batch_may_need_several_files_and_a_line_is_never_cut(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, 4096, 100, HostLog())
    texts = ["x" * length for length in (10, 5_000, 3_900, 3_900, 1)]
    assert sink._write_batch([record(text) for text in texts]) == 0
    assert messages(FileLog(tmp_path).lines("hello")[0]) == texts
    for path in tmp_path.glob("hello*"):
        assert messages(path.read_text().splitlines())


def test_lines_that_are_older_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, *(record(f"{number}\n", at=1_700_000_000 + number) for number in range(10)))
    assert messages(FileLog(tmp_path).lines("hello", since=1_700_000_007)[0]) == ["7", "8", "9"]


def test_other_line_ends_in_a_message_part_no_line(tmp_path: Path) -> None:
    write(tmp_path, record("a\u2028b\x85c\r\n"))
    log = FileLog(tmp_path)
    assert messages(log.lines("hello")[0]) == ["a\u2028b\x85c\r"]
    assert messages(log.news("hello", type(log.lines("nobody")[1])())[0]) == ["a\u2028b\x85c\r"]


@pytest.mark.parametrize("name", ["../secret", "..%2fsecret", "/etc/x", "\0", "x" * 5_000, ""])
def test_a_name_that_no_function_has_leads_out_of_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.log").write_text('{"time":"2026-01-31T12:00:00.000Z","message":"secret"}\n')
    folder = tmp_path / "logs"
    write(folder, record("x\n"))
    assert list(FileLog(folder).lines(name)[0]) == []


async def follow(log: FileLog, position: Any, until: str) -> list[str]:
    seen: list[str] = []
    async with asyncio.timeout(DEADLINE):
        async for lines in log.following("hello", position, 0.01):
            seen += messages(lines)
            if until in seen:
                return seen
    raise AssertionError


async def test_who_follows_gets_each_line_once_while_files_are_renamed(tmp_path: Path) -> None:
    log = FileLog(tmp_path)
    before, position = log.lines("hello")
    following = asyncio.create_task(follow(log, position, "1999"))

    def fill() -> None:
        for number in range(2000):
            write(tmp_path, record(f"{number}\n"), size=20_000, count=100)

    await asyncio.to_thread(fill)
    assert list(before) == []
    assert await following == [str(number) for number in range(2000)]


async def test_following_goes_on_behind_what_was_read(tmp_path: Path) -> None:
    write(tmp_path, record("1\n"), record("2\n"))
    log = FileLog(tmp_path)
    lines, position = log.lines("hello")
    write(tmp_path, record("3\n"))
    assert messages(lines) == ["1", "2"]
    assert await follow(log, position, "3") == ["3"]


async def test_a_follower_that_comes_too_late_is_told_so(tmp_path: Path) -> None:
    write(tmp_path, record("1\n"))
    log = FileLog(tmp_path)
    _, position = log.lines("hello")
    keep = (tmp_path / "hello.log").open()  # or its inode would be given to another file
    write(tmp_path, *(record(f"{number:04}\n") for number in range(200)), size=4096, count=2)
    seen = await follow(log, position, "0199")
    keep.close()
    assert seen[0] == "[lines that came too fast are missing here]"
    assert seen[1:] == [f"{number:04}" for number in range(201 - len(seen), 200)]


def _write_many(folder: str, worker: int, together: Any) -> None:
    sink = FileSink(Path(folder), 4096, 100, HostLog())
    together.wait(DEADLINE)
    for number in range(300):
        assert sink._write_batch([record(f"{worker}-{number}\n")]) == 0


def test_several_processes_write_into_one_folder_and_no_line_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(3)
    workers = [context.Process(target=_write_many, args=(str(tmp_path), number, together)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(DEADLINE)
        assert worker.exitcode == 0
    found = messages(FileLog(tmp_path).lines("hello")[0])
    assert sorted(found) == sorted(f"{worker}-{number}" for worker in range(3) for number in range(300))
    for worker in range(3):
        mine = [text for text in found if text.startswith(f"{worker}-")]
        assert mine == [f"{worker}-{number}" for number in range(300)]


@contextmanager
def small_files() -> Iterator[None]:
    """Let no file of this process grow, as on a full disk. Not while pytest has the word: it may write to one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_what_a_full_disk_does_not_take_is_counted_and_leaves_no_half_line(tmp_path: Path) -> None:
    log = HostLog()
    sink = FileSink(tmp_path, 1_000_000, 3, log)
    with small_files():
        lost = [sink._write_batch([record("x" * 200)]) for _ in range(6)]
        other = sink._write_batch([record("x" * 200, "other")])
    assert (lost, other) == ([0, 0, 0, 1, 1, 1], 0)
    assert [(error["event"], error["function"]) for error in log.errors] == [
        ("log of a function cannot be written", "hello")
    ]
    assert messages((tmp_path / "hello.log").read_text().splitlines()) == ["x" * 200] * 3


def test_a_folder_that_cannot_be_made_or_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"logging.files: .*file.* cannot be written to"):
        FileSink(tmp_path / "file", 4096, 2, HostLog())
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        FileSink(Path("/proc/self/fdinfo"), 4096, 2, HostLog())


def test_a_folder_that_is_gone_costs_the_log_alone(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    sink = write(folder, record("x\n"))
    os.rename(folder, tmp_path / "away")
    assert sink._write_batch([record("y\n"), record("z\n")]) == 2
    os.rename(tmp_path / "away", folder)
    assert sink._write_batch([record("y\n")]) == 0
