"""Folders that functions run from in place, as they are on a real file system."""

from __future__ import annotations

import io
import os
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serverfull.errors import InvalidParameterValue
from serverfull.reload import contents
from serverfull.reload.folders import HotFolders
from serverfull.storage.packages import check

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed folder with a function, and one beside it with what is nobody's business."""
    (tmp_path / "allowed" / "fn").mkdir(parents=True)
    (tmp_path / "allowed" / "fn" / "app.py").write_text("code")
    (tmp_path / "secret" / "fn").mkdir(parents=True)
    (tmp_path / "secret" / "fn" / "app.py").write_text("secret")
    return tmp_path / "allowed"


def folders(*allowed: Path) -> HotFolders:
    return HotFolders([str(path) for path in allowed], "", {}, lambda: allowed[0].parent)


def test_nothing_is_a_folder_where_none_is_allowed() -> None:
    nothing = HotFolders([], "hot-code", {}, Path)
    assert not any(nothing.is_hot(bucket) for bucket in ("hot-reload", "__local__", "hot-code", ""))


def test_three_names_of_buckets_mean_folders(root: Path) -> None:
    marked = HotFolders([str(root)], "hot-code", {}, Path)
    assert all(marked.is_hot(bucket) for bucket in ("hot-reload", "__local__", "hot-code"))
    assert not marked.is_hot("my-bucket")
    assert not folders(root).is_hot("")


def link(place: str, target: str) -> Callable[[Path], None]:
    return lambda root: (root / place).symlink_to(root / target)


OBSTACLES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda _: None, "nope", "there is no 'nope'"),
    "missing on the way": (lambda _: None, "nope/fn", "there is no 'nope'"),
    "a file": (lambda _: None, "fn/app.py", "'app.py' is no folder"),
    "below a file": (lambda _: None, "fn/app.py/x", "'app.py' is no folder"),
    "a fifo": (lambda root: os.mkfifo(root / "fifo"), "fifo", "'fifo' is no folder"),
    "a socket": (lambda root: os.mknod(root / "s", 0o140644), "s", "'s' is no folder"),
    "a link out": (link("out", "../secret/fn"), "out", "'out' is a symbolic link"),
    "a link on the way out": (link("out", "../secret"), "out/fn", "'out' is a symbolic link"),
    "a link within": (link("in", "fn"), "in", "'in' is a symbolic link"),
    "a link to itself": (link("loop", "loop"), "loop", "'loop' is a symbolic link"),
    "a dangling link": (link("gone", "nope"), "gone", "'gone' is a symbolic link"),
    "a link to the root": (link("slash", "/"), "slash/etc", "'slash' is a symbolic link"),
    "a link to a process": (link("magic", "/proc/self/root"), "magic/etc", "'magic' is a symbolic link"),
    "a link in from outside": (link("../in", "fn"), "../in", "'..'"),
    "another case": (lambda _: None, "FN", "there is no 'FN'"),
}


@pytest.mark.parametrize(("make", "below", "why"), OBSTACLES.values(), ids=OBSTACLES)
def test_what_is_not_a_folder_all_the_way_is_refused(
    root: Path, make: Callable[[Path], object], below: str, why: str
) -> None:
    make(root)
    with pytest.raises(InvalidParameterValue) as refusal:
        folders(root).admit(f"{root}/{below}")
    assert why in refusal.value.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(root: Path) -> None:
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    with pytest.raises(InvalidParameterValue, match="'null' is no folder"):
        folders(root).admit(f"{root}/null")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_folder_that_is_mounted_below_an_allowed_one_has_to_be_allowed_by_itself(root: Path) -> None:
    (root / "mounted").mkdir()
    subprocess.run(["mount", "--bind", root.parent / "secret", root / "mounted"], check=True)
    try:
        with pytest.raises(InvalidParameterValue, match="another file system is mounted at 'mounted'"):
            folders(root).admit(f"{root}/mounted/fn")
        assert folders(root, root / "mounted").admit(f"{root}/fn") == f"{root}/fn"
        assert folders(root / "mounted").admit(f"{root}/mounted/fn") == f"{root}/mounted/fn"
    finally:
        subprocess.run(["umount", root / "mounted"], check=True)


def test_an_allowed_folder_that_is_a_link_means_what_it_meant_at_the_start(root: Path) -> None:
    entry = root.parent / "entry"
    entry.symlink_to(root)
    found = folders(entry)
    assert found.find(found.admit(f"{entry}/fn")) == root / "fn"
    entry.unlink()
    entry.symlink_to(root.parent / "secret")
    assert found.find(f"{entry}/fn") == root / "fn"


@pytest.mark.parametrize("swapped", ["fn", ""])
def test_what_is_put_in_the_place_of_a_folder_after_it_was_checked_does_not_get_out(root: Path, swapped: str) -> None:
    found = folders(root)
    path = found.admit(f"{root}/fn")
    victim = root / swapped
    victim.rename(victim.with_name("before"))
    victim.symlink_to(root.parent / "secret" / swapped)
    for use in (found.find, found.copy, found.pack):
        with pytest.raises(InvalidParameterValue, match="is a symbolic link"):
            use(path)


def test_a_folder_that_was_held_before_it_was_swapped_is_what_is_read(root: Path, tmp_path: Path) -> None:
    found, copied = folders(root), tmp_path / "copied"
    copied.mkdir()
    with found.opened(f"{root}/fn") as folder:
        (root / "fn").rename(root / "before")
        (root / "fn").symlink_to(root.parent / "secret" / "fn")
        contents.copy(folder, copied)
    assert (copied / "app.py").read_text() == "code"


def test_a_copy_has_files_links_and_modes_and_stays_as_it_is(root: Path) -> None:
    fn = root / "fn"
    (fn / "pkg").mkdir()
    (fn / "pkg" / "tool").write_text("#!/bin/sh")
    (fn / "pkg" / "tool").chmod(0o700)
    (fn / "link").symlink_to("pkg/tool")
    (fn / "out").symlink_to("/etc/passwd")
    copied = folders(root).copy(str(fn))
    (fn / "app.py").write_text("edited")
    assert (copied / "app.py").read_text() == "code"
    assert (copied / "link").readlink() == Path("pkg/tool")
    assert (copied / "out").readlink() == Path("/etc/passwd")
    assert os.access(copied / "pkg" / "tool", os.X_OK)


def test_the_same_files_are_the_same_package_without_what_tools_leave(root: Path) -> None:
    fn = root / "fn"
    for folder in (".git", "__pycache__", "pkg/__pycache__", ".venv/bin", ".venv/lib/python3.11/site-packages/lib"):
        (fn / folder).mkdir(parents=True)
        (fn / folder / "file").write_text(folder)
    (fn / ".venv" / "pyvenv.cfg").write_text("")
    (fn / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    found = folders(root)
    package = found.pack(str(fn))
    os.utime(fn / "app.py", (1, 1))
    assert found.pack(str(fn)) == package
    check(package)
    names = [name for name in zipfile.ZipFile(io.BytesIO(package)).namelist() if not name.endswith("/")]
    assert names == ["app.py", ".venv/pyvenv.cfg", ".venv/lib/python3.11/site-packages/lib/file"]


def test_what_the_host_keeps_is_in_no_package_and_no_copy(root: Path) -> None:
    state = root / "fn" / "state"
    found = HotFolders([str(root)], "", {}, lambda: root.parent, [state])
    before = found.pack(f"{root}/fn")
    state.mkdir()
    (state / "key").write_text("secret")
    assert found.pack(f"{root}/fn") == before
    assert not (found.copy(f"{root}/fn") / "state").exists()


def test_what_cannot_be_a_package_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "fn" / "fifo")
    with pytest.raises(InvalidParameterValue, match="'fifo' in it is neither file, folder nor link"):
        folders(root).pack(f"{root}/fn")
    (root / "fn" / "fifo").unlink()
    monkeypatch.setattr(contents, "UNZIPPED_PACKAGE_BYTES", 3)
    with pytest.raises(InvalidParameterValue, match="more than 3 bytes"):
        folders(root).pack(f"{root}/fn")
    monkeypatch.setattr(contents, "PACKAGE_ENTRIES", 0)
    with pytest.raises(InvalidParameterValue, match="more than 0 files"):
        folders(root).copy(f"{root}/fn")
