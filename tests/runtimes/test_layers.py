"""Layers laid over each other, as `/opt` is on Lambda."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serverfull.runtimes.sandboxes.layers import merged


def layer(folder: Path, **files: str) -> Path:
    """Make a layer; ``a__b`` is a file in a folder."""
    folder.mkdir()
    for name, text in files.items():
        path = folder.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def everything(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_later_layers_lie_over_earlier_ones(tmp_path: Path) -> None:
    first = layer(tmp_path / "1", python__both="1", python__first="1")
    second = layer(tmp_path / "2", python__both="2", bin__second="2")
    found = merged([first, second], tmp_path / "opt")
    assert everything(found) == {"python/both": "2", "python/first": "1", "bin/second": "2"}
    assert everything(first) == {"python/both": "1", "python/first": "1"}


def test_files_are_the_layers_own_and_modes_and_links_are_kept(tmp_path: Path) -> None:
    only = layer(tmp_path / "1", bin__tool="#!", lib__real="x")
    (only / "bin" / "tool").chmod(0o555)
    (only / "lib" / "link").symlink_to("real")
    (only / "lib" / "nowhere").symlink_to("/not/there")
    (only / "lib").chmod(0o555)
    found = merged([only], tmp_path / "opt")
    assert (found / "bin" / "tool").stat().st_ino == (only / "bin" / "tool").stat().st_ino
    assert (found / "bin" / "tool").stat().st_mode & 0o777 == 0o555
    assert (found / "lib").stat().st_mode & 0o777 == 0o555
    assert os.readlink(found / "lib" / "link") == "real"
    assert os.readlink(found / "lib" / "nowhere") == "/not/there"
    (only / "lib").chmod(0o755)
    (found / "lib").chmod(0o755)


def test_a_folder_is_never_written_through_a_link_of_an_earlier_layer(tmp_path: Path) -> None:
    outside = layer(tmp_path / "outside", kept="kept")
    first = layer(tmp_path / "1")
    (first / "python").symlink_to(outside)
    second = layer(tmp_path / "2", python__kept="changed")
    found = merged([first, second], tmp_path / "opt")
    assert everything(outside) == {"kept": "kept"}
    assert (found / "python" / "kept").read_text() == "changed"


def test_what_was_a_folder_can_become_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    first = layer(tmp_path / "1", a__b__c="1", d="1")
    second = layer(tmp_path / "2", a="2", d__e="2")
    assert everything(merged([first, second], tmp_path / "opt")) == {"a": "2", "d/e": "2"}
    assert everything(merged([second, first], tmp_path / "opt")) == {"a/b/c": "1", "d": "1"}


def test_the_same_layers_are_merged_once_and_others_are_not_taken_for_them(tmp_path: Path) -> None:
    first, second = layer(tmp_path / "1", a="1"), layer(tmp_path / "2", a="2")
    found = merged([first, second], tmp_path / "opt")
    made = found.stat().st_ino
    assert merged([first, second], tmp_path / "opt").stat().st_ino == made
    assert merged([second, first], tmp_path / "opt") != found
    assert merged([first], tmp_path / "opt") != found


def test_many_that_ask_at_once_get_the_same_whole_folder(tmp_path: Path) -> None:
    only = layer(tmp_path / "1", **{f"f{number}": "x" for number in range(200)})
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: merged([only], tmp_path / "opt"), range(8)))
    assert len(found) == 1
    assert len(everything(found.pop())) == 200
    assert len(list((tmp_path / "opt").iterdir())) == 1


def test_what_cannot_be_merged_leaves_nothing_behind(tmp_path: Path) -> None:
    odd = layer(tmp_path / "1", a="1")
    os.mkfifo(odd / "pipe")
    with pytest.raises(ValueError, match="pipe is neither file, folder nor symbolic link"):
        merged([odd], tmp_path / "opt")
    with pytest.raises(FileNotFoundError):
        merged([tmp_path / "gone"], tmp_path / "opt")
    assert list((tmp_path / "opt").iterdir()) == []
