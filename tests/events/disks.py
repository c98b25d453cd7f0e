"""Disks of a test's own: one that can be cut from its power, one that can be full. Both need root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MEGABYTE = 1 << 20


def needs_mounts(why: str) -> None:
    """Skip a test where nothing can be mounted."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip(f"only root with mkfs.ext4 can {why}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def mounted(source: str, at: Path, *options: str) -> Iterator[Path]:
    """Mount something; it is gone afterwards, whatever still uses it."""
    at.mkdir(parents=True, exist_ok=True)
    try:
        _run("mount", *options, source, str(at))
    except subprocess.CalledProcessError as failure:
        pytest.skip(f"nothing can be mounted here: {failure.stderr.decode().strip()}")
    try:
        yield at
    finally:
        _run("umount", "--lazy", str(at))


class Disk:
    """A file system in a file in memory, which has what was written through to it and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._image = Path("/dev/shm") / f"serverfull-disk-{os.getpid()}-{folder.name}"
        self._copy = self._image.with_suffix(".copy")

    @contextmanager
    def on(self) -> Iterator[Path]:
        """Make it and give its folder."""
        try:
            with self._image.open("wb") as file:
                file.truncate(64 * _MEGABYTE)
            _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
            with mounted(str(self._image), self._folder / "disk", "-o", "loop") as path:
                yield path
        finally:
            self._image.unlink(missing_ok=True)

    @contextmanager
    def after_a_cut(self) -> Iterator[Path]:
        """Give its folder as it would be if the power were cut now; the disk itself goes on."""
        try:
            shutil.copyfile(self._image, self._copy)
            with mounted(str(self._copy), self._folder / "cut", "-o", "loop") as path:
                yield path
        finally:
            self._copy.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Give a folder with so much room."""
    with mounted("none", folder / "small", "-t", "tmpfs", "-o", f"size={megabytes}m") as path:
        yield path


def fill(folder: Path) -> Path:
    """Leave no room in a folder; gives the file to delete."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (_MEGABYTE, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return filler
