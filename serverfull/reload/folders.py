"""Folders that functions run from in place: looked at anew at each use, held while they are read.

A folder is opened name by name, from the root of the file system on, and no symbolic link is followed on the way. So
what is opened is what the path says, whatever is put in its place meanwhile; and what a path says has been checked by
`serverfull.domain.hot_paths`. Everything here blocks.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from serverfull.domain.hot_paths import MARKERS, OFF, AllowedRoot, FolderIdentity, HotPath, expanded, located, refused
from serverfull.reload import contents

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class HotFolders:
    """The folders of this machine that functions may run from in place.

    :param allowed: the folders that the operator has named, with all that is below them.
    :param marker: a bucket that means a folder too, beside the usual ones.
    :param variables: those that paths may name.
    :param scratch: gives the folder that copies are made in.
    :param hidden: folders that are in no copy and no package, wherever they lie: what the host itself keeps.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        marker: str,
        variables: Mapping[str, str],
        scratch: Callable[[], Path],
        hidden: Sequence[Path] = (),
    ) -> None:
        # Once: what a link among them means later has not been allowed by anybody.
        self._roots = [AllowedRoot(_names(path), _names(os.path.realpath(path))) for path in allowed]
        self._buckets = {*MARKERS, marker or MARKERS[0]} if self._roots else set()
        self._variables = variables
        self._scratch = scratch
        self._hidden = hidden

    def is_hot(self, bucket: str) -> bool:
        """Whether a bucket stands for folders of this machine; nothing but a bucket does while none is allowed."""
        return bucket in self._buckets

    def admit(self, key: str) -> str:
        """Take a folder from a deployment; gives its path, with variables replaced, as it is to be kept.

        :raises InvalidParameterValue: it may not be used, or is not there.
        """
        path = expanded(key, self._variables)
        with self._opened(located(path, key, self._roots), key):
            return path.removesuffix("/")

    def find(self, path: str) -> Path:
        """Give a folder that was admitted, without symbolic links, having looked whether it may be used still.

        :raises InvalidParameterValue: it may not, or is gone.
        """
        with self.opened(path):
            return Path(str(located(path, path, self._roots)))

    def identity(self, path: str) -> FolderIdentity:
        """Say which folder one that was admitted is, whatever it is called later.

        :raises InvalidParameterValue: it may not be used any more, or is gone.
        """
        with self.opened(path) as folder:
            found = os.fstat(folder)
            return FolderIdentity(found.st_dev, found.st_ino)

    def copy(self, path: str) -> Path:
        """Give a new folder with what is now in one that was admitted; whoever gets it removes it.

        :raises InvalidParameterValue: it may not be used any more, is gone, or cannot be copied.
        """
        made = Path(tempfile.mkdtemp(dir=self._scratch()))
        made.chmod(0o755)
        try:
            with self.opened(path) as folder, _reading(path):
                contents.copy(folder, made, self._own())
        except BaseException:
            self.remove(made)
            raise
        return made

    def remove(self, copied: Path) -> None:
        """Delete a folder that `copy` gave."""
        shutil.rmtree(copied, ignore_errors=True)

    def pack(self, path: str) -> bytes:
        """Make a deployment package of what is now in a folder that was admitted.

        :raises InvalidParameterValue: it may not be used any more, is gone, or cannot be packed.
        """
        with self.opened(path) as folder, _reading(path):
            return contents.pack(folder, self._own())

    def _own(self) -> set[FolderIdentity]:
        """Say which folders are the host's own; they may be made later than this object."""
        found = set()
        for path in self._hidden:
            with suppress(OSError):
                own = path.stat()
                found.add(FolderIdentity(own.st_dev, own.st_ino))
        return found

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """Hold a folder that was admitted; gives a descriptor that can be looked up in, and not be read.

        :raises InvalidParameterValue: it may not be used any more, or is gone.
        """
        if not self._roots:
            raise refused(path, OFF)
        with self._opened(located(path, path, self._roots), path) as folder:
            yield folder

    @contextmanager
    def _opened(self, place: HotPath, key: str) -> Iterator[int]:
        folder = os.open("/", _STEP)
        try:
            for name in place.root:
                folder = _step(folder, name, key)
            mount = _mount_of(folder)
            for name in place.below:
                folder = _step(folder, name, key)
                if _mount_of(folder) != mount:
                    raise refused(key, f"another file system is mounted at {name!r}, which has to be allowed by itself")
            yield folder
        finally:
            os.close(folder)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Refuse a folder whose contents cannot be read."""
    try:
        yield
    except contents.ContentsRefused as refusal:
        raise refused(path, str(refusal)) from None
    except OSError as failure:
        raise refused(path, f"{failure.filename!r} in it cannot be read ({os.strerror(failure.errno or 0)})") from None


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)


def _step(folder: int, name: str, key: str) -> int:
    """Open what is in a folder, and let go of that. It stays open where this raises."""
    try:
        found = os.open(name, _STEP, dir_fd=folder)
    except FileNotFoundError:
        raise refused(key, f"there is no {name!r}") from None
    except OSError as failure:
        raise refused(key, f"{name!r} cannot be opened ({os.strerror(failure.errno or 0)})") from None
    mode = os.fstat(found).st_mode
    if not stat.S_ISDIR(mode):
        os.close(found)
        raise refused(key, f"{name!r} is {'a symbolic link' if stat.S_ISLNK(mode) else 'no folder'}")
    os.close(folder)
    return found


def _mount_of(folder: int) -> str:
    """Give the number of the mount that a folder is in; file systems are mounted several times, too."""
    with open(f"/proc/self/fdinfo/{folder}", encoding="ascii") as lines:
        return next((line for line in lines if line.startswith("mnt_id")), "")
