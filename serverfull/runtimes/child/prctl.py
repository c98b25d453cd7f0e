"""The calls of prctl(2) that Python has no name for."""

from __future__ import annotations

import ctypes
import os

_PDEATHSIG = 1
_CHILD_SUBREAPER = 36

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def _call(option: int, value: int) -> None:
    if _prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def signal_at_death_of(parent: int, number: int) -> None:
    """Get a signal when the parent ends.

    :raises ProcessLookupError: it has ended already.
    """
    _call(_PDEATHSIG, number)
    if os.getppid() != parent:
        raise ProcessLookupError("the parent has ended")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _call(_CHILD_SUBREAPER, 1)
