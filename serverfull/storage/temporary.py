"""Folders of hosts that keep nothing: each is deleted with its host, or by another one where its host was killed.

Whoever has one holds its lock, which ends with the process at the latest; a folder that nobody holds is abandoned.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from serverfull.storage.durable import hold

_PREFIX = "serverfull-packages-"


class TemporaryFolder:
    """A folder where the machine keeps what is temporary, for its owner alone. Close it.

    :ivar path: where it is.
    :raises OSError: it cannot be made.
    """

    def __init__(self) -> None:
        # It gets a name that others look for when it is held already: until then it could be taken for abandoned.
        made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
        self._descriptor = hold(made)
        self.path = made.rename(made.with_name(made.name.removeprefix(".")))

    def close(self) -> None:
        """Delete it. Closing twice is fine."""
        if self._descriptor >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._descriptor)
            self._descriptor = -1


def remove_abandoned() -> list[Path]:
    """Delete what hosts of this user that were killed have left; gives the folders. It may take its time."""
    removed = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody holds it, or deletes it just now, or it is another user's
            if path.lstat().st_uid != os.geteuid():
                continue
            descriptor = hold(path)
            try:
                shutil.rmtree(path)
                removed.append(path)
            finally:
                os.close(descriptor)
    return removed
