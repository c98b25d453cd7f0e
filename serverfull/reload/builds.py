"""Runs the build commands of functions, when what they are built of has changed.

`Builder.build` is called for each change that somebody has noticed, and finds out whether it is one of a source: the
files that a build itself writes change, too. What it makes anew is its own at once. What was there before and is
another afterwards may also have been saved by somebody meanwhile; so the command runs once more, and what changes again
is its own from then on. Files are looked at on threads, and commands run in processes; the rest is on the loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from serverfull.errors import CodeNotBuilt
from serverfull.interfaces import Building

_NO_SOURCES = frozenset(
    ("__pycache__", "node_modules", "venv", ".venv", ".git", ".hg", ".svn", ".gradle", ".idea", ".vscode")
)
"""Folders that nobody edits."""

Files: TypeAlias = Mapping[str, tuple[int, int, int]]
"""Time, size and inode of each file."""


class BuildLogger(Protocol):
    """What is needed of a logger: a structlog one fits."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""


class BuildFailure(Exception):
    """A command has not done its work.

    :param why: in words.
    :param output: what it said.
    """

    def __init__(self, why: str, output: str) -> None:
        super().__init__(why)
        self.why = why
        self.output = output


@dataclass(slots=True)
class _Site:
    """A folder that is built.

    :ivar sources: what was built last; None: nothing was.
    :ivar outputs: what builds write.
    :ivar suspects: what may be that, or was saved while the last one ran.
    :ivar failure: how the last one has failed.
    """

    command: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sources: Files | None = None
    outputs: set[str] = field(default_factory=set)
    suspects: set[str] = field(default_factory=set)
    failure: str | None = None

    def sources_of(self, files: Files) -> Files:
        return {path: facts for path, facts in files.items() if path not in self.outputs}

    def learn(self, before: Files, after: Files) -> None:
        """Tell outputs from sources, by what a build has changed."""
        changed = {path for path, facts in after.items() if before.get(path) != facts}
        made = changed - before.keys()
        again = changed & self.suspects
        self.outputs |= made | again
        self.suspects = changed - self.outputs
        self.sources = self.sources_of(before)


class Builder(Building):
    """Builds functions.

    :param enabled: whether commands are run; where they are not, the log says so, once for each function.
    :param run: runs a command in a folder, gives its output, and raises `BuildFailure`; kills what it has started when
        it is cancelled.
    :param output: takes a function's name and what its build has said.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        run: Callable[[str, Path], Awaitable[str]],
        output: Callable[[str, str], None],
        logger: BuildLogger,
    ) -> None:
        self._enabled = enabled
        self._run = run
        self._output = output
        self._logger = logger
        self._sites: dict[Path, _Site] = {}
        self._refused: set[str] = set()

    async def build(self, function: str, folder: Path, command: str) -> bool:
        if not self._enabled:
            self._refuse(function)
            return False
        site = self._sites.get(folder)
        if site is None or site.command != command:
            site = self._sites[folder] = _Site(command)
        async with site.lock:
            ran = False
            files = await asyncio.to_thread(files_of, folder)
            while site.sources_of(files) != site.sources:
                site.failure = await self._build(function, folder, command)
                ran = True
                before, files = files, await asyncio.to_thread(files_of, folder)
                site.learn(before, files)
            if site.failure is not None:
                raise CodeNotBuilt(site.failure)
            return ran

    async def _build(self, function: str, folder: Path, command: str) -> str | None:
        """Run a command; gives why it has failed."""
        began = time.perf_counter()
        try:
            said = await self._run(command, folder)
        except BuildFailure as failed:
            self._output(function, _lines(failed.output))
            self._logger.error("build failed", function=function, command=command, reason=failed.why)
            return f"its build command, {command}, {failed.why}; the function's log has what it said"
        self._output(function, _lines(said))
        took = round((time.perf_counter() - began) * 1000, 1)
        self._logger.info("built", function=function, command=command, milliseconds=took)
        return None

    def _refuse(self, function: str) -> None:
        if function not in self._refused:
            self._refused.add(function)
            self._logger.warning(
                "not built", function=function, hint="it has a build command, and reload.builds does not allow any"
            )


def files_of(folder: Path) -> Files:
    """Look at all files that may be sources. Blocks."""
    found: dict[str, tuple[int, int, int]] = {}
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # gone meanwhile
            continue
        for entry in entries:
            with suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    told = entry.stat(follow_symlinks=False)
                    found[entry.path] = told.st_mtime_ns, told.st_size, told.st_ino
                elif entry.name not in _NO_SOURCES:
                    waiting.append(entry.path)
    return found


def _lines(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"
