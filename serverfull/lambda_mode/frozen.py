"""What a bootstrap does before anything else; elsewhere it does nothing.

PyInstaller's loader unpacks a bootstrap into ``/tmp/_MEI…`` at every start, and takes that away at the end. But Lambda
kills what overruns its timeout, and keeps ``/tmp`` for the start after that: soon nothing would fit there any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path

_MARK = ".in-use-by-serverfull"
"""A file with a lock that its process holds, so that it ends with the process, however that ends."""


def settle_in() -> None:
    """Remove what starts that were killed have left, and give subprocesses the system's libraries."""
    home = getattr(sys, "_MEIPASS", None)
    if home is None:
        return
    # The loader wants its own libraries found; what a handler starts, such as git, wants the system's.
    original = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    os.environ.pop("LD_LIBRARY_PATH", None)
    if original is not None:
        os.environ["LD_LIBRARY_PATH"] = original
    _mark(Path(home))
    for other in Path(home).parent.glob(f"_MEI*/{_MARK}"):
        _remove_if_abandoned(other)


def _mark(home: Path) -> None:
    """Mark a folder as in use until this process ends; the file gets its name when it is locked."""
    fresh = home / f"{_MARK}-{os.getpid()}"
    fcntl.flock(os.open(fresh, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)  # closed by the end of the process
    fresh.rename(home / _MARK)


def _remove_if_abandoned(mark: Path) -> None:
    try:
        descriptor = os.open(mark, os.O_RDWR)
    except OSError:  # it goes away just now, or is somebody else's
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(mark.parent, ignore_errors=True)
    except BlockingIOError:
        pass  # in use, as this process's own is
    finally:
        os.close(descriptor)
