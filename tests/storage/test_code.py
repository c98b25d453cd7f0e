"""Code stores on this machine: packages survive, trees are whole, links hold for as long as they say."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from serverfull.domain.checksums import code_sha256, sha256_of
from serverfull.errors import InternalFailure
from serverfull.interfaces import CodeStore
from serverfull.storage.code import FileCodeStore, MemoryCodeStore
from serverfull.storage.durable import LOCK
from serverfull.storage.temporary import TemporaryFolder, remove_abandoned
from serverfull.testing.code_store_suite import CodeStoreSuite
from serverfull.testing.deployments import zipped

PACKAGE = zipped({"app.py": "def handler(event, context): return event"})


class TestFileCodeStore(CodeStoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[CodeStore]:
        store = FileCodeStore(tmp_path / "state", recent=0)
        yield store
        await store.aclose()


class TestMemoryCodeStore(CodeStoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[CodeStore]:
        store = MemoryCodeStore(recent=0)
        yield store
        await store.aclose()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileCodeStore]:
    store = FileCodeStore(tmp_path / "state")
    yield store
    await store.aclose()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", ".key"}


async def test_packages_and_trees_survive_the_store(store: FileCodeStore, tmp_path: Path) -> None:
    sha256 = await store.put(PACKAGE)
    tree = await store.tree(sha256)
    await store.aclose()
    again = FileCodeStore(tmp_path / "state")
    assert await again.package(sha256) == PACKAGE
    assert await again.tree(sha256) == tree
    await again.aclose()


async def test_files_are_for_their_owner_alone(store: FileCodeStore, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        sha256 = await store.put(PACKAGE)
        await store.tree(sha256)
        await store.url(sha256, 60)
        fresh = FileCodeStore(tmp_path / "another")
        await fresh.aclose()
    finally:
        os.umask(previous)
    for root in (tmp_path / "state", tmp_path / "another"):
        for folder in (root, root / "code", root / "unpacked"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for path in folder.iterdir():
                if path.is_file():
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_package_is_on_the_disk_before_it_has_its_name(
    store: FileCodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state" / "code"
    flushed: list[tuple[Path, set[str]]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink(), names(folder)))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", watched)
    sha256 = await store.put(PACKAGE)
    (fresh, before), (last, after) = flushed
    assert before == {fresh.name}
    assert (last, after) == (folder, {f"{sha256}.zip"})


async def test_a_package_that_was_changed_on_disk_is_not_given(store: FileCodeStore, tmp_path: Path) -> None:
    sha256 = await store.put(PACKAGE)
    (tmp_path / "state" / "code" / f"{sha256}.zip").write_bytes(PACKAGE[:-1])
    for ask in (store.package, store.tree):
        with pytest.raises(InternalFailure, match="damaged"):
            await ask(sha256)
    await store.put(PACKAGE)
    assert await store.package(sha256) == PACKAGE


async def test_a_tree_that_was_deleted_is_made_again(store: FileCodeStore, tmp_path: Path) -> None:
    sha256 = await store.put(PACKAGE)
    (await store.tree(sha256)).rename(tmp_path / "away")
    assert names(await store.tree(sha256)) == {"app.py"}


async def test_nothing_is_put_between_the_two_halves_of_a_sweep(
    store: FileCodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_only(kept: set[str]) -> None:
        with (tmp_path / "state" / "code" / LOCK).open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        swept.append(kept)

    swept: list[set[str]] = []
    monkeypatch.setattr(store._trees, "keep_only", keep_only)
    await store.sweep({"a"})
    assert swept == [{"a"}]


async def test_nobody_waits_while_a_sweep_deletes(
    store: FileCodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete_slowly(path: Path, **named: bool) -> None:
        if path.name.startswith(".old-"):
            deleting.set()
            assert may_end.wait(20)
        rmtree(path, **named)

    rmtree, deleting, may_end = shutil.rmtree, threading.Event(), threading.Event()
    for name in ("1" * 64, ".new-unfinished"):
        (tmp_path / "state" / "unpacked" / name).mkdir()
        (tmp_path / "state" / "unpacked" / name / "app.py").touch()
    (tmp_path / "state" / "unpacked" / "a file of somebody else").touch()
    monkeypatch.setattr("serverfull.storage.durable.shutil.rmtree", delete_slowly)
    sweeping = asyncio.create_task(store.sweep(set()))
    try:
        assert await asyncio.to_thread(deleting.wait, 20)
        async with asyncio.timeout(20):
            tree = await store.tree(await store.put(PACKAGE))
    finally:
        may_end.set()
        await sweeping
    assert names(tmp_path / "state" / "unpacked") == {tree.name}


async def test_a_sweep_spares_what_was_just_put_and_a_new_store_does_not(store: FileCodeStore, tmp_path: Path) -> None:
    await store.put(PACKAGE)
    assert await store.sweep(set()) == 0
    again = FileCodeStore(tmp_path / "state")
    assert await again.sweep(set()) == 1
    await again.aclose()
    assert names(tmp_path / "state" / "code") == set()


async def test_trees_without_a_package_are_swept(store: FileCodeStore, tmp_path: Path) -> None:
    orphan = tmp_path / "state" / "unpacked" / ("1" * 64)
    orphan.mkdir()
    (orphan / "left.py").touch()
    assert await store.sweep(set()) == 0
    assert names(tmp_path / "state" / "unpacked") == set()


CHILD = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from serverfull.storage import code, durable, packages

    directory, package, module, step = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3], sys.argv[4]

    def killed(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        store = code.FileCodeStore(directory, recent=0)
        sha256 = await store.put(package) if module != "durable.put" else None
        if module == "sweep":
            await store.tree(sha256)
        target = {"packages": packages, "durable.put": durable, "sweep": durable}[module]
        owner, _, attribute = step.rpartition(".")
        setattr(getattr(target, owner) if owner else target, attribute, killed)
        if module == "durable.put":
            await store.put(package)
        elif module == "sweep":
            await store.sweep(set())
        else:
            await store.tree(sha256)

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("module", "step"),
    [
        ("durable.put", "os.fsync"),
        ("durable.put", "flush_folder"),
        ("packages", "flush_tree"),
        ("packages", "place"),
        ("sweep", "shutil.rmtree"),
    ],
)
async def test_a_host_that_is_killed_leaves_a_store_that_is_whole(module: str, step: str, tmp_path: Path) -> None:
    (tmp_path / "package").write_bytes(PACKAGE)
    arguments = [str(tmp_path / "state"), str(tmp_path / "package"), module, step]
    command = [sys.executable, "-c", textwrap.dedent(CHILD), *arguments]
    killed = await asyncio.to_thread(subprocess.run, command, check=False)
    assert killed.returncode == -signal.SIGKILL
    store = FileCodeStore(tmp_path / "state")
    sha256 = sha256_of(PACKAGE)
    try:
        assert await store.package(sha256) == PACKAGE
    except KeyError:
        assert (module, step) in {("durable.put", "os.fsync"), ("sweep", "shutil.rmtree")}
    await store.sweep({sha256})
    left = names(tmp_path / "state" / "code") | names(tmp_path / "state" / "unpacked")
    assert left <= {f"{sha256}.zip", sha256}
    await store.put(PACKAGE)
    assert names(await store.tree(sha256)) == {"app.py"}
    await store.aclose()


UNPACK = """
    import asyncio, sys
    from pathlib import Path
    from serverfull.storage.code import FileCodeStore

    async def main():
        store = FileCodeStore(Path(sys.argv[1]))
        print("ready", flush=True)
        sys.stdin.readline()
        assert {path.name for path in (await store.tree(sys.argv[2])).iterdir()} == {"app.py"}
        await store.aclose()

    asyncio.run(main())
"""


async def test_processes_that_share_a_store_unpack_side_by_side(store: FileCodeStore, tmp_path: Path) -> None:
    sha256 = await store.put(PACKAGE)
    command = [sys.executable, "-c", textwrap.dedent(UNPACK), str(tmp_path / "state"), sha256]
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    children = [await asyncio.create_subprocess_exec(*command, **pipes) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
    await asyncio.gather(*(child.communicate(b"go\n") for child in children))
    assert [child.returncode for child in children] == [0] * 4
    assert names(tmp_path / "state" / "unpacked") == {sha256}


@pytest.mark.parametrize(
    ("step", "folder", "busy_for"),
    [("code.write_file", "code", "sweeps"), ("trees.unpack", "unpacked", "sweeps"),
     ("code.delete_leftovers", "code", "all"), ("trees.put_aside", "unpacked", "all")],
)  # fmt: skip
async def test_who_writes_keeps_sweeps_out_and_sweeps_keep_all_out(
    step: str, folder: str, busy_for: str, store: FileCodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = step.partition(".")
    original = getattr(importlib.import_module(f"serverfull.storage.{module}"), name)
    found: list[bool] = []

    def watched(*arguments: object) -> object:
        with (tmp_path / "state" / folder / ".lock").open("r+") as lock:
            for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    found.append(True)
                except BlockingIOError:
                    found.append(False)
        return original(*arguments)

    monkeypatch.setattr(f"serverfull.storage.{step}", watched)
    await store.tree(await store.put(PACKAGE))
    await store.sweep(set())
    assert found == [False, busy_for == "sweeps"]


async def test_a_memory_store_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = MemoryCodeStore()
    tree = await store.tree(await store.put(PACKAGE))
    assert tree.is_relative_to(tmp_path)
    await store.aclose()
    assert names(tmp_path) == set()


def test_what_a_killed_host_has_left_is_removed_and_what_others_hold_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import tempfile, time; from serverfull.storage.temporary import TemporaryFolder; folder = TemporaryFolder()"
    code += "; (folder.path / 'file').touch(); print(folder.path, flush=True); time.sleep(1000)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        own = TemporaryFolder()
        assert remove_abandoned() == []
        assert names(tmp_path) == {path.name, own.path.name}
        other.kill()
        other.wait()
    assert remove_abandoned() == [path]
    assert names(tmp_path) == {own.path.name}
    own.close()
    own.close()
    assert names(tmp_path) == set()


async def signed(store: FileCodeStore, seconds: int) -> tuple[str, int, str]:
    link = urlsplit(await store.url(await store.put(PACKAGE), seconds))
    query = parse_qs(link.query, strict_parsing=True)
    return link.path.removeprefix("/_serverfull/code/"), int(query["expires"][0]), query["signature"][0]


async def test_a_link_is_for_one_package_and_one_time(store: FileCodeStore) -> None:
    now = int(time.time())
    sha256, expires, signature = await signed(store, 600)
    assert sha256 == sha256_of(PACKAGE)
    assert now + 600 <= expires <= time.time() + 600
    assert await store.verify(sha256, expires, signature)
    assert not await store.verify("0" * 64, expires, signature)
    assert not await store.verify(sha256, expires + 1, signature)
    for wrong in ("", signature[:-1], signature + "0", "é", "\udcff", "0" * 64):
        assert not await store.verify(sha256, expires, wrong)


async def test_links_survive_a_restart_and_hold_for_their_own_store_alone(store: FileCodeStore, tmp_path: Path) -> None:
    link = await signed(store, 60)
    again, other = FileCodeStore(tmp_path / "state"), FileCodeStore(tmp_path / "other")
    assert await again.verify(*link)
    assert not await other.verify(*link)
    await again.aclose()
    await other.aclose()


async def test_a_key_that_is_damaged_is_replaced(store: FileCodeStore, tmp_path: Path) -> None:
    link = await signed(store, 60)
    (tmp_path / "state" / "code" / ".key").write_bytes(b"too short")
    again = FileCodeStore(tmp_path / "state")
    assert not await again.verify(*link)
    assert await again.verify(*await signed(again, 60))
    assert len((tmp_path / "state" / "code" / ".key").read_bytes()) == 32
    await again.aclose()


def test_a_sha256_is_written_in_two_ways() -> None:
    assert code_sha256(sha256_of(b"")) == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    for wrong in ("", "E3" * 32, "e3" * 31):
        with pytest.raises(ValueError, match="no SHA-256"):
            code_sha256(wrong)


async def test_restored_packages_that_all_can_read_are_made_private(store: FileCodeStore, tmp_path: Path) -> None:
    sha256 = await store.put(PACKAGE)
    await store.tree(sha256)
    for folder in ("code", "unpacked"):
        (tmp_path / "state" / folder).chmod(0o755)
    again = FileCodeStore(tmp_path / "state")
    for folder in ("code", "unpacked"):
        assert stat.S_IMODE((tmp_path / "state" / folder).stat().st_mode) == 0o700
    assert await again.package(sha256) == PACKAGE
    await again.aclose()
