"""Writes zip archives of which the same files always make the same bytes."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_FILE = 0o100644
_PROGRAM = 0o100755


def write_zip(folder: Path, archive: Path, *, prefix: bytes = b"", programs: Iterable[str] = ()) -> None:
    """Pack the files of a folder, sorted, all with the same time. Of their modes only counts whether they are programs.

    :param prefix: bytes before the archive, such as ``#!/usr/bin/env python3``.
    :param programs: names of files that are programs, whatever their modes.
    """
    executable = frozenset(programs)
    with archive.open("wb") as stream:
        stream.write(prefix)
        with zipfile.ZipFile(stream, "w") as packed:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                program = name in executable or bool(path.stat().st_mode & stat.S_IXUSR)
                packed.writestr(entry_of(name, program=program), path.read_bytes(), compresslevel=9)


def entry_of(name: str, *, program: bool) -> zipfile.ZipInfo:
    """Give a file's entry, of which only the name and whether it is a program tell it from others."""
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.create_system = 3  # Unix, so that the mode counts
    entry.external_attr = (_PROGRAM if program else _FILE) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
