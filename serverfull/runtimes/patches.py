"""What is replaced in the process while at least one host runs in it, and put back after the last."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence


class Patch(ABC):
    """One such replacement. Several hosts in one process share it."""

    _users = 0
    _undo: Sequence[Callable[[], None]] = ()

    @classmethod
    def install(cls) -> None:
        """Replace what is to be replaced; calls nest."""
        cls._users += 1
        if cls._users == 1:
            cls._undo = cls._apply()

    @classmethod
    def uninstall(cls) -> None:
        """Put it back when the last host is gone."""
        cls._users -= 1
        if cls._users == 0:
            for undo in reversed(cls._undo):
                undo()
            cls._undo = ()

    @classmethod
    @abstractmethod
    def _apply(cls) -> Sequence[Callable[[], None]]:
        """Do it; gives what takes it back, the last one first."""
