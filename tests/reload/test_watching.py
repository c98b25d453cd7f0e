"""The watcher, on real folders: what is told, once, and what is not."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from serverfull.errors import ExtraMissing
from serverfull.reload import watching as module
from serverfull.reload.watching import Watcher

DEADLINE = 20.0


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    error = warning


class Heard:
    """Counts calls, and waits for them."""

    def __init__(self) -> None:
        self.calls = 0
        self.threads: set[threading.Thread] = set()
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.calls += 1
        self.threads.add(threading.current_thread())
        self._called.set()

    async def once_more(self) -> int:
        await asyncio.wait_for(self._called.wait(), DEADLINE)
        self._called.clear()
        calls, self.calls = self.calls, 0
        return calls


class Site:
    """A watched root, and another beside it that shows that the watcher has come past a certain point."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.log = Log()
        self.watcher = Watcher(debounce=0.02, logger=self.log, **options)
        self.root = tmp_path / "root"
        self._witness = tmp_path / "witness"
        self._numbers = itertools.count()
        self.heard = Heard()
        self.seen = Heard()

    async def start(self, **patterns: Any) -> Site:
        self._witness.mkdir()
        watch = self.watcher.watch(self.root, self.heard, **patterns)
        witness = self.watcher.watch(self._witness, self.seen)
        await asyncio.wait_for(asyncio.gather(watch.active(), witness.active()), DEADLINE)
        return self

    async def nothing_heard(self) -> bool:
        (self._witness / str(next(self._numbers))).touch()
        await self.seen.once_more()
        await asyncio.sleep(0)  # the callbacks of one burst come one after the other
        return not self.heard.calls


@pytest.fixture
async def make_site(tmp_path: Path) -> AsyncIterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**options: Any) -> Site:
        sites.append(Site(tmp_path, **options))
        return sites[-1]

    yield make
    for site in sites:
        await site.watcher.aclose()
        await site.watcher.aclose()


@pytest.fixture
async def site(make_site: Callable[..., Site], tmp_path: Path) -> Site:
    (tmp_path / "root" / "package").mkdir(parents=True)
    (tmp_path / "root" / "package" / "app.py").write_text("1")
    return await make_site(exclude=("__pycache__", "*.swp")).start()


async def test_changes_are_told_on_the_loop_and_a_burst_of_them_once(site: Site) -> None:
    for number in range(50):
        (site.root / "package" / f"{number}.py").write_text("2")
    assert await site.heard.once_more() == 1
    (site.root / "package" / "app.py").write_text("3")
    assert await site.heard.once_more() == 1
    (site.root / "package" / "app.py").unlink()
    assert await site.heard.once_more() == 1
    assert site.heard.threads == {threading.main_thread()}
    assert await site.nothing_heard()


async def test_reading_changes_nothing(site: Site) -> None:
    assert (site.root / "package" / "app.py").read_text() == "1"
    assert await site.nothing_heard()


async def test_an_atomic_rename_of_an_editor_is_a_change_and_its_swap_file_is_none(site: Site) -> None:
    (site.root / "package" / ".app.py.swp").write_text("2")
    assert await site.nothing_heard()
    for text in ("2", "3"):
        (site.root / "package" / "new").write_text(text)
        os.replace(site.root / "package" / "new", site.root / "package" / "app.py")
        await site.heard.once_more()


async def test_what_is_excluded_or_git_ignored_is_not_told(make_site: Callable[..., Site], tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("node_modules/left", "out", "src/out", "kept"):
        (root / folder).mkdir(parents=True)
    (tmp_path / ".gitignore").write_text("*\n")
    (root / ".gitignore").write_text("/out/\n*.log\n")
    (root / "kept" / ".gitignore").write_text("!important.log\n")
    site = await make_site(exclude=("node_modules",)).start()
    for ignored in ("node_modules/left/index.js", "out/a.bin", "x.log", "src/y.log"):
        (root / ignored).write_text("1")
    shutil.rmtree(root / "out")
    assert await site.nothing_heard()
    for told in ("src/out/a.bin", "kept/important.log"):
        (root / told).write_text("1")
        await site.heard.once_more()
    (root / ".gitignore").write_text("*.log\n")
    await site.heard.once_more()
    (root / "out").mkdir()
    await site.heard.once_more()
    (root / "out" / "a.bin").write_text("2")
    await site.heard.once_more()


async def test_include_says_what_counts_and_git_ignore_can_be_left_aside(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ".gitignore").write_text("*.py\n")
    site = await make_site(gitignore=False).start(include=("*.py",), exclude=("test_*",))
    for ignored in ("a.txt", "test_a.py"):
        (site.root / ignored).write_text("1")
    assert await site.nothing_heard()
    (site.root / "a.py").write_text("1")
    await site.heard.once_more()


async def test_a_new_folder_is_watched_with_all_below_it(site: Site) -> None:
    (site.root / "a" / "b" / "c").mkdir(parents=True)
    (site.root / "a" / "b" / "c" / "x.py").write_text("1")
    await site.heard.once_more()
    await site.nothing_heard()
    (site.root / "a" / "b" / "c" / "x.py").write_text("2")
    await site.heard.once_more()


@pytest.mark.parametrize("how", [shutil.rmtree, lambda root: root.rename(root.with_name("away"))])
async def test_a_root_that_goes_and_comes_again_is_watched_again(site: Site, how: Callable[[Path], object]) -> None:
    how(site.root)
    await site.heard.once_more()
    await site.nothing_heard()
    site.root.mkdir()
    await site.heard.once_more()
    await site.nothing_heard()
    (site.root / "app.py").write_text("1")
    await site.heard.once_more()


async def test_a_root_that_is_not_there_yet_is_watched_when_it_comes(make_site: Callable[..., Site]) -> None:
    site = make_site()
    site.root = site.root / "deep" / "down"
    await site.start()
    site.root.parent.parent.mkdir()
    await site.nothing_heard()
    site.heard.calls = 0
    site.root.mkdir(parents=True)
    await site.heard.once_more()
    await site.nothing_heard()
    (site.root / "app.py").write_text("1")
    await site.heard.once_more()


async def test_a_link_to_a_release_is_followed_where_it_is_switched(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    for release in ("1", "2"):
        (tmp_path / "releases" / release / "code").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1")
    (tmp_path / "root").symlink_to(tmp_path / "current" / "code")
    site = await make_site().start()
    (tmp_path / "releases" / "1" / "code" / "app.py").write_text("1")
    await site.heard.once_more()
    (tmp_path / "next").symlink_to("releases/2")
    os.replace(tmp_path / "next", tmp_path / "current")
    await site.heard.once_more()
    await site.nothing_heard()
    (tmp_path / "releases" / "1" / "code" / "app.py").write_text("2")
    assert await site.nothing_heard()
    (tmp_path / "releases" / "2" / "code" / "app.py").write_text("2")
    await site.heard.once_more()


async def test_a_folder_far_above_the_root_may_be_replaced(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site()
    site.root = tmp_path / "far" / "above" / "the" / "root"
    site.root.mkdir(parents=True)
    await site.start()
    (tmp_path / "far").rename(tmp_path / "away")
    await site.heard.once_more()
    site.root.mkdir(parents=True)
    await site.heard.once_more()
    (site.root / "app.py").write_text("1")
    await site.heard.once_more()


async def test_a_file_can_be_watched_and_its_neighbours_do_not_count(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    (tmp_path / "root").write_text("1")
    site = await make_site().start()
    (tmp_path / "neighbour").write_text("1")
    assert await site.nothing_heard()
    site.root.write_text("2")
    await site.heard.once_more()
    (tmp_path / "neighbour").rename(site.root)
    await site.heard.once_more()


async def test_a_change_before_the_watcher_is_ready_is_told(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site()
    site.root.mkdir()
    watch = site.watcher.watch(site.root, site.heard)
    began = time.time_ns()
    while not (site.root / "app.py").exists() or (site.root / "app.py").stat().st_ctime_ns <= began:
        (site.root / "app.py").write_text("1")
    await asyncio.wait_for(watch.active(), DEADLINE)
    await site.heard.once_more()


async def test_a_callback_that_fails_is_logged_and_harms_nobody(site: Site) -> None:
    def fail() -> None:
        raise ValueError("mine")

    await site.watcher.watch(site.root, fail).active()
    (site.root / "x").touch()
    await site.heard.once_more()
    await site.nothing_heard()
    [(event, fields)] = site.log.lines
    assert event == "a change was not taken up"
    assert fields["root"] == str(site.root)
    assert "mine" in str(fields["exc_info"])
    (site.root / "y").touch()
    await site.heard.once_more()


async def test_one_thread_and_one_native_watcher_serve_all_roots_and_end_with_them(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    def instances() -> int:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return sum(os.path.lexists(link) and "inotify" in os.readlink(link) for link in links)

    async def until(settled: Callable[[], bool]) -> None:  # native threads end a moment after they are told to
        async with asyncio.timeout(DEADLINE):
            while not settled():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)

    await until(lambda: instances() == 0)  # of the test before
    before = threads()
    site = make_site()
    assert threads() <= before
    assert instances() == 0
    roots = [tmp_path / str(number) for number in range(40)]
    for root in roots:
        root.mkdir()
    watches = [site.watcher.watch(root, site.heard) for root in roots]
    for watch in watches:
        await asyncio.wait_for(watch.active(), DEADLINE)
    await until(lambda: instances() == 1 and threads() <= before + 2)  # ours, and its own
    await site.start()
    for watch in watches:
        watch.close()
        watch.close()
    for root in roots:
        (root / "x").touch()
    assert await site.nothing_heard()
    await site.watcher.aclose()
    await until(lambda: instances() == 0)
    assert "serverfull-watcher" not in {thread.name for thread in threading.enumerate()}


async def test_files_are_polled_where_that_is_asked_for(make_site: Callable[..., Site], tmp_path: Path) -> None:
    (tmp_path / "root" / "package").mkdir(parents=True)
    site = await make_site(polling=True, poll_interval=0.05).start()
    (site.root / "package" / "app.py").write_text("1")
    await site.heard.once_more()


LIMITED = """
import asyncio, sys
from pathlib import Path
open("/proc/sys/user/max_inotify_watches", "w").write("3")
from serverfull.reload.watching import Watcher

class Log:
    def warning(self, event, **fields):
        print(event, "|", fields["reason"], "|", fields["hint"])
    error = warning

async def main(root):
    changed = asyncio.Event()
    watcher = Watcher(debounce=0.02, poll_interval=0.05, logger=Log())
    await watcher.watch(root, changed.set).active()
    (root / "9" / "x").write_text("1")
    await asyncio.wait_for(changed.wait(), 20)
    print("told")
    await watcher.aclose()

asyncio.run(main(Path(sys.argv[1])))
"""


def may_lower_limits() -> bool:
    """Whether a user namespace can be made here, and a limit of the kernel's be lowered in it."""
    try:
        subprocess.run(
            ["unshare", "-Ur", sys.executable, "-c", "open('/proc/sys/user/max_inotify_watches', 'r+')"], check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


async def test_where_the_kernel_watches_no_more_files_are_polled_and_the_log_says_so(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
    if not await asyncio.to_thread(may_lower_limits):
        pytest.skip("no user namespace can be made here, in which a limit of the kernel's could be lowered")
    command = ["unshare", "-Ur", sys.executable, "-c", LIMITED, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=DEADLINE)
    said, told = done.stdout.splitlines()
    assert said.startswith(
        "changes are looked for by polling | OS file watch limit reached. | the kernel watches no more"
    )
    assert "fs.inotify.max_user_watches" in said
    assert told == "told", done.stderr


async def test_many_folders_are_said_to_be_many(
    make_site: Callable[..., Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MANY", 2)
    (tmp_path / "root" / "one" / "two").mkdir(parents=True)
    site = await make_site().start()
    [(event, fields)] = site.log.lines
    assert (event, fields["folders"]) == ("many folders are watched", 3)


async def test_a_missing_package_is_named_with_its_extra(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serverfull.reload.extra.importlib.util.find_spec", lambda name: None)
    site = make_site()
    with pytest.raises(ExtraMissing, match=r"watchfiles.*pip install 'serverfull\[reload\]'"):
        site.watcher.watch(site.root, site.heard)
