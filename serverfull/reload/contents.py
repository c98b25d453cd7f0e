"""What is in a folder that may change meanwhile: copied, or packed as a version that does not change any more.

Everything is read by the descriptor of the folder that it is in, and no link is followed, so nothing of elsewhere is
read, whatever is put in its place. What goes away meanwhile is left out. Everything here blocks.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from serverfull.domain.hot_paths import FolderIdentity
from serverfull.domain.limits import PACKAGE_ENTRIES, UNZIPPED_PACKAGE_BYTES

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the same files are the same package
_NOT_PACKED = frozenset((".git", ".hg", ".svn", "__pycache__"))
_VIRTUALENV = "pyvenv.cfg"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ContentsRefused(Exception):
    """What is in a folder cannot be used; the message says why."""


class _Entry(NamedTuple):
    """A file, a link or a folder.

    :param path: in the folder that is walked through.
    :param parent: the descriptor of the folder that it is in.
    """

    path: str
    name: str
    parent: int
    mode: int


def copy(folder: int, into: Path, without: Collection[FolderIdentity] = ()) -> None:
    """Copy what is in a folder.

    :param into: an empty folder.
    :param without: folders that are left out.
    :raises ContentsRefused: it has something else than files, folders and links.
    """
    for entry in _entries(folder, without):
        place = into / entry.path
        if stat.S_ISDIR(entry.mode):
            place.mkdir(mode=0o755)
        elif stat.S_ISLNK(entry.mode):
            os.symlink(os.readlink(entry.name, dir_fd=entry.parent), place)
        else:
            with suppress(FileNotFoundError), _opened(entry) as file, place.open("wb") as copied:
                shutil.copyfileobj(file, copied)
                place.chmod(stat.S_IMODE(entry.mode) & 0o755)
                times = os.fstat(file.fileno())
                os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))  # bytecode beside it says of which it is


def pack(folder: int, without: Collection[FolderIdentity] = ()) -> bytes:
    """Make a deployment package of what is in a folder; the same files give the same package.

    The history of version control, bytecode and the programs of virtual environments are left out.

    :param without: other folders that are left out.
    :raises ContentsRefused: it is too large, or has something else than files, folders and links.
    """
    packed = io.BytesIO()
    size = 0
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in _entries(folder, without, packed=True):
            info = zipfile.ZipInfo(entry.path + "/" * stat.S_ISDIR(entry.mode), _EARLIEST)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = _attributes(entry.mode)
            with suppress(FileNotFoundError):
                content = _content(entry)
                size += len(content)
                if size > UNZIPPED_PACKAGE_BYTES:
                    raise ContentsRefused(f"it has more than {UNZIPPED_PACKAGE_BYTES} bytes")
                archive.writestr(info, content)
    return packed.getvalue()


def _attributes(mode: int) -> int:
    if stat.S_ISLNK(mode):
        return (stat.S_IFLNK | 0o777) << 16
    if stat.S_ISDIR(mode):
        return (stat.S_IFDIR | 0o755) << 16
    return (stat.S_IFREG | (0o755 if mode & stat.S_IXUSR else 0o644)) << 16


def _content(entry: _Entry) -> bytes:
    if stat.S_ISDIR(entry.mode):
        return b""
    if stat.S_ISLNK(entry.mode):
        return os.fsencode(os.readlink(entry.name, dir_fd=entry.parent))
    with _opened(entry) as file:
        return file.read(UNZIPPED_PACKAGE_BYTES + 1)


def _opened(entry: _Entry) -> BinaryIO:
    return open(os.open(entry.name, _READ, dir_fd=entry.parent), "rb")


def _identity(name: str, parent: int) -> FolderIdentity | None:
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return FolderIdentity(found.st_dev, found.st_ino)


def _entries(folder: int, without: Collection[FolderIdentity], *, packed: bool = False) -> Iterator[_Entry]:
    """Give what is in a folder, each folder before what is in it, in the order of their names."""
    count = 0
    for path, folders, files, parent in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        if packed:
            left_out = {*_NOT_PACKED, *(("bin", "include") if _VIRTUALENV in files else ())}
            folders[:] = [name for name in folders if name not in left_out]
        folders[:] = [name for name in sorted(folders) if _identity(name, parent) not in without]
        for name in (*folders, *sorted(files)):
            count += 1
            if count > PACKAGE_ENTRIES:
                raise ContentsRefused(f"it has more than {PACKAGE_ENTRIES} files")
            entry = f"{path}/{name}"[2:]
            try:
                mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
                raise ContentsRefused(f"{entry!r} in it is neither file, folder nor link")
            yield _Entry(entry, name, parent, mode)
