"""Where installations are kept: whole or not at all, for as long as somebody needs them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serverfull.dependencies.environments import RECENT, Store, Unfit

PACKAGE = "0" * 64
LARGEST = 1 << 20
WEEK = 604_800.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "dependencies")


def made(store: Store, name: str, files: dict[str, str]) -> Path:
    with store.workplace() as folder:
        result = folder / "result"
        result.mkdir()
        for path, content in files.items():
            (result / path).parent.mkdir(parents=True, exist_ok=True)
            (result / path).write_text(content)
        return store.keep(result, name, LARGEST)


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def code(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def test_a_package_comes_over_its_environment_and_shares_the_disk_with_it(store: Store, tmp_path: Path) -> None:
    environment = made(store, "python3.12-a", {"six.py": "installed", "lib/one.py": "installed"})
    tree = store.lay(PACKAGE, code(tmp_path / "code", {"six.py": "own", "lib/two.py": "own"}), "python3.12-a")
    assert store.tree(PACKAGE, "python3.12-a") == tree
    assert {path.relative_to(tree).as_posix(): path.read_text() for path in tree.rglob("*.py")} == {
        "six.py": "own",
        "lib/one.py": "installed",
        "lib/two.py": "own",
    }
    assert (environment / "six.py").read_text() == "installed"
    assert (tree / "lib/one.py").stat().st_ino == (environment / "lib/one.py").stat().st_ino


def test_nobody_may_write_into_what_functions_share(store: Store) -> None:
    with store.workplace() as folder:
        (folder / "result").mkdir()
        program = folder / "result/program"
        program.write_text("")
        program.chmod(0o6777)
        kept = store.keep(folder / "result", "python3.12-a", LARGEST)
    assert stat.S_IMODE((kept / "program").stat().st_mode) == 0o555


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../../etc/passwd", "..", "a/../../../b", "self"])
def test_a_link_that_leads_out_of_an_environment_keeps_it_from_being_used(store: Store, target: str) -> None:
    with store.workplace() as folder:
        (folder / "result/sub").mkdir(parents=True)
        (folder / "result/sub/link").symlink_to("../.." if target == "self" else target)
        with pytest.raises(Unfit, match="which leads out of it"):
            store.keep(folder / "result", "python3.12-a", LARGEST)
    assert store.environment("python3.12-a") is None


def test_links_to_what_is_inside_are_kept(store: Store) -> None:
    with store.workplace() as folder:
        (folder / "result/node_modules/.bin").mkdir(parents=True)
        (folder / "result/node_modules/left.js").write_text("left")
        (folder / "result/node_modules/.bin/left").symlink_to("../left.js")
        kept = store.keep(folder / "result", "node22-a", LARGEST)
    assert (kept / "node_modules/.bin/left").read_text() == "left"


def test_what_is_too_large_or_a_pipe_is_not_used(store: Store) -> None:
    with pytest.raises(Unfit, match="more than 1 MB"):
        made(store, "python3.12-a", {"large": "x" * (LARGEST + 1)})
    with store.workplace() as folder:
        (folder / "result").mkdir()
        os.mkfifo(folder / "result/pipe")
        with pytest.raises(Unfit, match="neither file, folder nor link"):
            store.keep(folder / "result", "python3.12-a", LARGEST)


def test_an_environment_that_another_process_has_made_meanwhile_is_taken(store: Store) -> None:
    first = made(store, "python3.12-a", {"a.py": "first"})
    assert made(store, "python3.12-a", {"a.py": "second"}) == first
    assert (first / "a.py").read_text() == "first"


def test_an_environment_goes_some_time_after_the_last_package_that_needs_it(store: Store, tmp_path: Path) -> None:
    environment = made(store, "python3.12-a", {"six.py": ""})
    tree = store.lay(PACKAGE, code(tmp_path / "code", {"app.py": ""}), "python3.12-a")
    age(environment, 2 * WEEK)
    age(tree, 2 * WEEK)
    assert store.sweep({PACKAGE}, WEEK, 0) == []
    assert tree.is_dir()
    assert store.sweep(set(), WEEK, 0) == []  # it was needed a moment ago
    assert not tree.exists()
    assert environment.is_dir()
    age(environment, 2 * WEEK)
    assert store.sweep(set(), WEEK, 0) == ["python3.12-a"]
    assert not environment.exists()


def test_a_tree_that_was_made_a_moment_ago_is_spared(store: Store, tmp_path: Path) -> None:
    made(store, "python3.12-a", {"six.py": ""})
    tree = store.lay(PACKAGE, code(tmp_path / "code", {}), "python3.12-a")
    store.sweep(set(), 0.0, 0)
    assert tree.is_dir()
    age(tree, 2 * RECENT)
    store.sweep(set(), 0.0, 0)
    assert not tree.exists()


def test_what_a_killed_host_was_making_is_removed_and_what_is_being_made_is_not(store: Store, tmp_path: Path) -> None:
    held = """
import os, signal, sys
from pathlib import Path
from serverfull.dependencies.environments import Store
with Store(Path(sys.argv[1])).workplace() as folder:
    (folder / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    directory = tmp_path / "dependencies"
    subprocess.run([sys.executable, "-c", held, str(directory)], check=False)
    [left] = (directory / "making").iterdir()
    with store.workplace() as folder:
        store.sweep(set(), WEEK, 0)
        assert not left.exists()
        assert folder.is_dir()
    assert not folder.exists()


def test_what_was_fetched_is_thrown_away_where_it_is_too_much(store: Store, tmp_path: Path) -> None:
    made(store, "python3.12-a", {"six.py": ""})
    (store.fetched() / "pip").mkdir()
    (store.fetched() / "pip/archive").write_bytes(bytes(1000))
    with store.workplace():
        store.sweep(set(), WEEK, 999)
    assert (store.fetched() / "pip").is_dir(), "an installer is using it"
    store.sweep(set(), WEEK, 1000)
    assert (store.fetched() / "pip").is_dir()
    store.sweep(set(), WEEK, 999)
    assert not (store.fetched() / "pip").exists()


def test_sweeping_where_nothing_was_ever_installed_makes_no_folder(store: Store, tmp_path: Path) -> None:
    assert store.sweep(set(), WEEK, 0) == []
    assert not (tmp_path / "dependencies").exists()
