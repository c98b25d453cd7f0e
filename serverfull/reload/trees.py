"""What is watched of a root, and what of that counts: folders, patterns, ``.gitignore`` files, symbolic links to it.

A `Tree` is used by the watcher's thread alone. It lists folders, not files: each folder costs one watch of the
kernel's, and what is left out by patterns is not looked into, however much is in there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pathspec import GitIgnoreSpec

IGNORE_FILE = ".gitignore"

ADDED, MODIFIED, DELETED = 1, 2, 3
"""What has happened to a path, as watchfiles says it."""

_LINKS = 40
"""Symbolic links that are followed on the way to a root; as many as the kernel follows."""


@dataclass(frozen=True)
class Rules:
    """Which files below a root count.

    :param include: patterns as in ``.gitignore``, relative to the root; empty: all files count.
    :param exclude: the same for what does not count, and is not looked into.
    :param gitignore: whether ``.gitignore`` files at and below the root say so, too.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    gitignore: bool = True

    @cached_property
    def included(self) -> GitIgnoreSpec | None:
        """The compiled patterns of what counts; None: everything does."""
        return GitIgnoreSpec.from_lines(self.include) if self.include else None

    @cached_property
    def excluded(self) -> GitIgnoreSpec:
        """The compiled patterns of what does not count."""
        return GitIgnoreSpec.from_lines(self.exclude)


class _Layer(NamedTuple):
    """A ``.gitignore`` file: where its patterns begin, and what they are."""

    folder: str
    patterns: GitIgnoreSpec


class Tree:
    """A root as it was when it was last looked at.

    :param root: an absolute path; what is there may come, go and be a symbolic link.
    :param rules: which of its files count.
    """

    def __init__(self, root: Path, rules: Rules) -> None:
        self.root = os.path.normpath(root)
        self._rules = rules
        self._real = ""
        self._identity: tuple[int, int] | None = None
        self.folders: dict[str, tuple[_Layer, ...]] = {}
        """The folders that are watched for the files in them, with the ``.gitignore`` files that count there."""
        self.hinges: frozenset[str] = frozenset()
        """Paths on the way to the root: where one comes, goes or is replaced, the root is another."""

    @property
    def watched(self) -> Iterator[str]:
        """All folders that have to be watched: those of the tree, and those that the hinges are in."""
        yield from self.folders
        for hinge in self.hinges:
            yield os.path.dirname(hinge)

    def look(self, since: int | None = None) -> bool:
        """Look at the disk again.

        :param since: nanoseconds since the epoch.
        :return: whether something that counts was changed after that; False where ``since`` is None.
        """
        self._real, self.hinges = _way_to(self.root)
        self._identity = _identity(self._real)
        self.folders = {}
        fresh = False
        if self._identity is None:
            return fresh
        if not os.path.isdir(self._real):
            return since is not None and _changed_since(self._real, since)
        waiting: list[tuple[str, tuple[_Layer, ...]]] = [(self._real, ())]
        while waiting:
            folder, layers = waiting.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError:  # it has gone, or nobody lets us in: there is nothing in it for the host either
                continue
            layers = self._with_own_patterns(folder, layers, entries)
            self.folders[folder] = layers
            for entry in entries:
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                except OSError:
                    continue
                if is_folder and not self._ignored(entry.path, layers, folder=True):
                    waiting.append((entry.path, layers))
                elif since is not None and not is_folder and not fresh:
                    fresh = _changed_since(entry.path, since) and not self._ignored(entry.path, layers, folder=False)
        return fresh

    def moved(self) -> bool:
        """Say whether the root is not what it was, which may have happened where nothing is watched."""
        return _identity(self.root) != self._identity

    def effect(self, kind: int, path: str) -> tuple[bool, bool]:
        """Say what an event means.

        :return: whether something that counts has changed, and whether the tree has to be looked at again.
        """
        if path in self.hinges:
            other = kind != MODIFIED
            return other or path not in self.folders, other
        if path in self.folders:
            return (kind != MODIFIED,) * 2
        layers = self.folders.get(os.path.dirname(path))
        if layers is None:  # a neighbour of a hinge, or the folder of one
            return False, kind != MODIFIED and any(os.path.dirname(hinge) == path for hinge in self.hinges)
        is_folder = os.path.isdir(path) and not os.path.islink(path)
        if is_folder and kind == MODIFIED:  # its files have events of their own
            return False, False
        ignored = self._ignored(path, layers, folder=is_folder) or (
            kind == DELETED and self._ignored(path, layers, folder=True)  # nobody knows any more what it was
        )
        other = (is_folder and not ignored) or (self._rules.gitignore and os.path.basename(path) == IGNORE_FILE)
        return not ignored, other

    def _with_own_patterns(
        self, folder: str, layers: tuple[_Layer, ...], entries: Sequence[os.DirEntry[str]]
    ) -> tuple[_Layer, ...]:
        if not self._rules.gitignore or not any(entry.name == IGNORE_FILE for entry in entries):
            return layers
        try:
            with open(f"{folder}/{IGNORE_FILE}", encoding="utf-8", errors="replace") as file:
                return (*layers, _Layer(folder, GitIgnoreSpec.from_lines(file.read().splitlines())))
        except (OSError, ValueError):  # unreadable, or a pattern that is none
            return layers

    def _ignored(self, path: str, layers: tuple[_Layer, ...], *, folder: bool) -> bool:
        end = "/" if folder else ""
        relative = os.path.relpath(path, self._real) + end
        if self._rules.excluded.match_file(relative):
            return True
        if not folder and self._rules.included is not None and not self._rules.included.match_file(relative):
            return True
        for layer in reversed(layers):
            said = layer.patterns.check_file(os.path.relpath(path, layer.folder) + end).include
            if said is not None:
                return said
        return False


def _way_to(path: str) -> tuple[str, frozenset[str]]:
    """Give the real path, as far as there is one, and the paths on which it depends."""
    hinges: set[str] = set()
    parts = path.split("/")[:0:-1]
    here, links = "", 0
    while parts:
        part = parts.pop()
        if part == "..":
            here = os.path.dirname(here)
            continue
        if part in ("", "."):
            continue
        here = f"{here.rstrip('/')}/{part}"
        try:
            mode = os.lstat(here).st_mode
        except OSError:
            hinges.add(here)
            return here, frozenset(hinges)
        if stat.S_ISLNK(mode):
            hinges.add(here)
            links += 1
            target = os.readlink(here) if links <= _LINKS else ""
            here = "" if target.startswith("/") else os.path.dirname(here)
            parts += target.split("/")[::-1]
    if here not in ("", "/"):
        hinges.add(here)
    return here or "/", frozenset(hinges)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _changed_since(path: str, since: int) -> bool:
    try:
        return os.lstat(path).st_ctime_ns > since
    except OSError:
        return False
