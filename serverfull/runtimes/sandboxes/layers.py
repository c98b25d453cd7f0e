"""Lays the layers of a function over each other, into the one folder that it sees as ``/opt``.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/chapter-layers.html
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from serverfull.runtimes.sandboxes.leftovers import remove_tree


def extension_programs(opt: Path) -> list[Path]:
    """Give the programs of a function's extensions, in the order of their names: whatever is no folder.

    :param opt: its layers, laid over each other.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in (opt / "extensions").iterdir() if not path.is_dir() or path.is_symlink())
    return []


def merged(layers: Sequence[Path], into: Path) -> Path:
    """Give the folder of these layers, later ones over earlier ones; made at the first call, found at all others.

    Files are hard links where the file systems allow it, so it must be shown to functions read-only. Modes and symbolic
    links are kept. Several processes may ask for the same layers at the same time; none sees half a folder.

    :param layers: folders of unpacked layers, the first one at the bottom. They do not change once they are there.
    :param into: where merged folders are kept; made if it is not there.
    :raises ValueError: a layer holds something that is neither file, folder nor symbolic link.
    :raises OSError: a layer is not there, or the disk is full.
    """
    folder = into / _identity(layers)
    if folder.is_dir():
        return folder
    into.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=into))
    try:
        _lay(layers, making, _link)
        try:
            making.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        remove_tree(making)
    return folder


def linked(layers: Sequence[Path], into: Path) -> Path:
    """Give a new folder of these layers, as `merged` makes them, for one function alone: its owner removes it.

    :raises ValueError: a layer holds something that is neither file, folder nor symbolic link.
    :raises OSError: a layer is not there, or the disk is full.
    """
    return _own(layers, into, _link)


def copied(layers: Sequence[Path], into: Path) -> Path:
    """Give a new folder of these layers, for one function alone: it can be shown to that function as it is.

    Files are copies, so that what it writes there is seen by no other. Nobody may write into it but those who may
    write into everything.

    :raises ValueError: a layer holds something that is neither file, folder nor symbolic link.
    :raises OSError: a layer is not there, or the disk is full.
    """
    return _own(layers, into, _copy, allowed=~0o222)


def _own(layers: Sequence[Path], into: Path, place_file: Callable[[str, Path], None], allowed: int = 0o7777) -> Path:
    into.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="own-", dir=into))
    try:
        _lay(layers, making, place_file, allowed)
    except BaseException:
        remove_tree(making)
        raise
    return making


def lay(layers: Sequence[Path], into: Path) -> None:
    """Put these folders into an empty one, later ones over earlier ones, as hard links where the file system has them.

    :raises ValueError: one holds something that is neither file, folder nor symbolic link.
    :raises OSError: one is not there, or the disk is full.
    """
    _lay(layers, into, _link)


def _lay(layers: Sequence[Path], making: Path, place_file: Callable[[str, Path], None], allowed: int = 0o7777) -> None:
    modes: dict[Path, int] = {making: 0o755}
    for layer in layers:
        _lay_over(layer, making, modes, place_file)
    for path in reversed(modes):  # the innermost first: a folder may be one that nobody can write into
        path.chmod(modes[path] & allowed)


def _identity(layers: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for layer in layers:
        found = layer.stat()
        digest.update(f"{layer.resolve()}\0{found.st_dev}\0{found.st_ino}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:40]


def _lay_over(source: Path, target: Path, modes: dict[Path, int], place_file: Callable[[str, Path], None]) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            place = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                _make_folder(place)
                modes[place] = stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
                _lay_over(Path(entry.path), place, modes, place_file)
                continue
            _make_room(place, modes)
            if entry.is_symlink():
                place.symlink_to(Path(entry.path).readlink())
            elif entry.is_file(follow_symlinks=False):
                place_file(entry.path, place)
            else:
                raise ValueError(f"{entry.path} is neither file, folder nor symbolic link")


def _make_folder(place: Path) -> None:
    if place.is_symlink() or not place.is_dir():
        with suppress(FileNotFoundError):
            place.unlink()
        place.mkdir(mode=0o700)


def _make_room(place: Path, modes: dict[Path, int]) -> None:
    """Remove what an earlier layer has put there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
        for path in [path for path in modes if path.is_relative_to(place)]:
            del modes[path]
        return
    with suppress(FileNotFoundError):
        place.unlink()


def _link(source: str, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:  # another file system, one without links, or too many of them
        shutil.copy2(source, place)


def _copy(source: str, place: Path) -> None:
    shutil.copy2(source, place)
    place.chmod(stat.S_IMODE(place.stat().st_mode) & ~0o222)
