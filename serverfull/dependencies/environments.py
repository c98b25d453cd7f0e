"""Where installations are kept, and what functions see of them.

::

    DIR/installed/<environment>/           what an installer made, once for each content and interpreter
    DIR/trees/<package>.<environment>/     a package's files over that: what its functions have as their own folder
    DIR/making/<name>/                     where installers work; whoever does so holds it
    DIR/fetched/                           what installers keep for the next time

All of it can be deleted while no host runs. Names appear with a whole and durable folder behind them, or not at all.
Everything here blocks; several processes may share the directory.
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serverfull.runtimes.sandboxes.layers import lay
from serverfull.runtimes.sandboxes.leftovers import remove_tree
from serverfull.storage.durable import delete_aside, flush_tree, held, hold, make_private, place, put_aside

RECENT = 300.0
"""Seconds for which a tree is never swept: its function may not have been written down yet."""

_ABANDONED = 3_600.0
"""Seconds after which a folder that is not even held yet is nobody's."""

_ENTRIES = 200_000
"""Files, links and folders of an installation."""


class Unfit(Exception):
    """What an installer has made cannot be used; the message says why."""


class Store:
    """The folders of installations.

    :param directory: made when it is first needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def tree(self, package: str, environment: str) -> Path | None:
        """Give the folder of a package with its environment; None where there is none yet."""
        path = self._place("trees") / f"{package}.{environment}"
        return path if path.is_dir() else None

    def environment(self, name: str) -> Path | None:
        """Give an environment, which is in use from now on; None where there is none yet."""
        path = self._place("installed") / name
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def fetched(self) -> Path:
        """Give the folder for what installers fetch."""
        return self._made("fetched")

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """Give a new folder to work in, which is gone afterwards."""
        making = self._made("making")
        path = Path(tempfile.mkdtemp(prefix=".", dir=making))
        descriptor = hold(path)
        try:
            path = path.rename(path.with_name(path.name.removeprefix(".")))
            yield path
        finally:
            remove_tree(path)
            os.close(descriptor)

    def keep(self, made: Path, name: str, most_bytes: int) -> Path:
        """Give an environment its name; another one of that name, made at the same time, will do as well.

        :param made: the folder, on the same file system.
        :param most_bytes: that its files may have.
        :raises Unfit: it has too much, or what would lead out of it.
        :raises OSError: the disk is full or fails.
        """
        _check(made, most_bytes)
        return self._put("installed", made, name)

    def lay(self, package: str, code: Path, name: str) -> Path:
        """Give the folder of a package with an environment, made now.

        What both have is the package's, as where somebody copies his own files over vendored ones.

        :param code: the folder of the unpacked package.
        :raises FileNotFoundError: the environment is gone meanwhile.
        :raises OSError: the disk is full or fails.
        """
        environment = self._place("installed") / name
        with self.workplace() as folder:
            made = folder / "tree"
            made.mkdir()
            lay([environment, code], made)
            return self._put("trees", made, f"{package}.{name}")

    def sweep(self, used: set[str], keep: float, cache_bytes: int) -> list[str]:
        """Delete what nobody needs any more, and what a crash has left; gives the environments that went.

        :param used: the packages that there are.
        :param keep: seconds that an environment stays without a tree.
        :param cache_bytes: that may be left of what was fetched.
        """
        if not self._place("making").is_dir():
            return []
        trees, installed = self._made("trees"), self._made("installed")
        with held(trees, alone=True):
            kept = {path.name for path in _visible(trees) if path.name.partition(".")[0] in used or _age(path) < RECENT}
            put_aside(trees, kept)
        needed = {name.partition(".")[2] for name in kept}
        with held(installed, alone=True):
            gone = []
            for path in _visible(installed):
                if path.name in needed:
                    os.utime(path)
                elif _age(path) > max(keep, RECENT):
                    gone.append(path.name)
            put_aside(installed, {path.name for path in _visible(installed)}.difference(gone))
        delete_aside(trees)
        delete_aside(installed)
        self._remove_abandoned()
        self._empty_cache(cache_bytes)
        return gone

    def _remove_abandoned(self) -> None:
        for path in self._made("making").iterdir():
            with suppress(OSError):  # somebody holds it
                if path.name.startswith(".") and _age(path) < _ABANDONED:
                    continue
                descriptor = hold(path)
                try:
                    remove_tree(path)
                finally:
                    os.close(descriptor)

    def _empty_cache(self, most_bytes: int) -> None:
        from serverfull.dependencies.running import size_of

        folder = self._made("fetched")
        if size_of(folder) > most_bytes and not any(_visible(self._made("making"))):
            for path in folder.iterdir():
                remove_tree(path)

    def _put(self, kind: str, made: Path, name: str) -> Path:
        folder = self._made(kind)
        path = folder / name
        flush_tree(made)
        with held(folder):
            try:
                place(made, path)
            except FileExistsError:
                if not path.is_dir():
                    raise
            os.utime(path)
        return path

    def _place(self, kind: str) -> Path:
        return self._directory / kind

    def _made(self, kind: str) -> Path:
        make_private(self._directory)
        path = self._place(kind)
        make_private(path)
        return path


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def _check(root: Path, most_bytes: int) -> None:
    """See that an environment is what functions may share: of a size, of files, folders and links to what is inside.

    Nobody may write into its files: a function that did would write into those of others.
    """
    total = entries = 0
    real_root = os.path.realpath(root)
    for folder, folders, files in os.walk(root):
        entries += len(folders) + len(files)
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - a third of the time of Path
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                _check_link(path, real_root)
            elif stat.S_ISREG(found.st_mode):
                total += found.st_size
                os.chmod(path, stat.S_IMODE(found.st_mode) & 0o555 | 0o444)  # noqa: PTH101
            elif stat.S_ISDIR(found.st_mode):
                os.chmod(path, 0o755)  # noqa: PTH101, S103 - as packages have them
            else:
                raise Unfit(f"It installs {name!r}, which is neither file, folder nor link.")
        if entries > _ENTRIES:
            raise Unfit(f"It installs more than {_ENTRIES} files and folders.")
        if total > most_bytes:
            raise Unfit(f"It installs more than {most_bytes >> 20} MB (dependencies.max_mb).")
    root.chmod(0o755)


def _check_link(path: str, real_root: str) -> None:
    leads_to = os.path.realpath(path)
    if os.path.isabs(os.readlink(path)) or not leads_to.startswith(real_root + os.sep):  # noqa: PTH115, PTH117
        raise Unfit(f"It installs the link {os.path.basename(path)!r}, which leads out of it.")  # noqa: PTH119
