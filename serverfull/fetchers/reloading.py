"""Functions of a TARGET that are loaded anew when their code changes: a decorator of what `load_target` gives.

Everything runs on the loop but the import itself, which runs on a thread of its own, one at a time: it is the user's
code, and may take as long as it likes. Until it has ended the old functions serve; calls that run go on with them.
Modules below the folder of the target are forgotten and imported again, all of them, so that no two of them disagree
about a third. What old modules have started, such as threads, goes on: nothing of theirs is stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import linecache
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from serverfull.domain.functions import Function, Handler
from serverfull.domain.records import Partition
from serverfull.errors import CodeBroken, TargetError
from serverfull.fetchers.targets import load_target, of_users, place_of
from serverfull.interfaces import Fetcher, Found, Published, Surroundings, Watch

if TYPE_CHECKING:
    from types import TracebackType

_FOREIGN = frozenset({"site-packages", "dist-packages", ".venv", "venv", "node_modules"})
"""Folders whose modules are not the user's own, also where they are below the target's."""

_ONE_AT_A_TIME = threading.Lock()
"""Of several TARGETs in one process, which may have modules in common."""

_SLOW = 10.0
"""Seconds after which it is said that an import has not ended yet."""


class ReloadingFetcher(Fetcher):
    """Serves what a TARGET names, as it is now.

    What cannot be imported any more is answered by an error of each function that there was, until it can.

    :param text: as `load_target` takes it.
    :raises TargetError: it cannot be loaded in the first place.
    """

    def __init__(self, text: str) -> None:
        sys.dont_write_bytecode = True  # a file saved twice in a second, with the same size, would pass for unchanged
        self._text = text
        self._modules = _Modules(frozenset(sys.modules))
        began = time.time_ns()
        self._current = load_target(text)
        place = place_of(text)
        self._root = place.first if _FOREIGN.intersection(place.folder.parts) else place.folder
        self._modules.folder = place.folder
        self._modules.note(began)
        self._module = place.target.partition(":")[0]
        self._broken: CodeBroken | None = None
        self._generation = 1
        self._given: dict[str, tuple[Function, Function]] = {}
        self._surroundings: Surroundings | None = None
        self._watch: Watch | None = None
        self._stale = False
        self._task: asyncio.Task[None] | None = None

    @property
    def source(self) -> str:  # type: ignore[override]
        """What the functions that are served now come from."""
        return self._current.source

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function as it is now."""
        return self._as_now(name, await self._current.fetch(name, qualifier))

    async def list(self) -> Mapping[str, Function]:
        """Give every function as it is now; where the code is broken, those that there were."""
        return {name: self._as_now(name, function) for name, function in (await self._current.list()).items()}

    def lacks(self, name: str) -> bool:
        """Ask what is served now."""
        return self._current.lacks(name)

    def source_of(self, name: str) -> str:
        """Ask what is served now."""
        return self._current.source_of(name)

    def at(self, partition: Partition) -> Fetcher:
        """Give itself: what is served now may be other for each account, and nobody would ask again."""
        return self

    async def published(self, name: str) -> Published:
        """Ask what is served now."""
        return await self._current.published(name)

    async def survey(self) -> Sequence[Found]:
        """Say what is served now, and why it cannot be."""
        found = await self._current.survey()
        if self._broken is None:
            return found
        return [known._replace(failure=known.failure or str(self._broken)) for known in found]

    async def open(self, surroundings: Surroundings) -> None:
        """Open what is served, and watch its folder from now on.

        :raises ExtraMissing: the packages that watch are not installed.
        """
        self._surroundings = surroundings
        await self._current.open(surroundings)
        self._watch = surroundings.watching().watch(self._root, self._changed, include=("*.py",))
        self._task = asyncio.get_running_loop().create_task(self._begin(self._watch), name="serverfull-reload")

    async def aclose(self) -> None:
        """Watch no more, and close what is served."""
        if self._watch is not None:
            self._watch.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._current.aclose()

    def _as_now(self, name: str, function: Function) -> Function:
        if self._generation == 1:
            return function
        known = self._given.get(name)
        if known is None or known[0] is not function:
            now = replace(function, generation=self._generation)
            if self._broken is not None:
                handler = _raising(self._broken, function)
                now = replace(now, handler=handler, mock=handler)
            known = self._given[name] = function, now
        return known[1]

    async def _begin(self, watch: Watch) -> None:
        """Take up what was saved since the modules were imported and before they were watched."""
        await watch.active()
        if self._modules.changed():
            self._stale = True
        await self._follow()

    def _changed(self) -> None:
        self._stale = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="serverfull-reload")

    async def _follow(self) -> None:
        """Load until nothing has changed meanwhile."""
        while self._stale:
            self._stale = False
            if self._broken is None and not self._is_concerned():
                continue
            try:
                await self._reload()
            except Exception as failure:  # of a fetcher of the user's
                self._logger.error("code was not reloaded", target=self._text, exc_info=failure)

    def _is_concerned(self) -> bool:
        """Whether what has changed may be a file that was imported, or one that the settings say counts besides."""
        assert self._surroundings is not None
        return bool(self._surroundings.settings.reload.include) or self._modules.changed()

    async def _reload(self) -> None:
        began = time.perf_counter()
        names = set(await self._current.list())
        try:
            fresh = await self._loaded()
        except CodeBroken as broken:
            self._broken = broken
            self._logger.error("code cannot be loaded", target=self._text, reason=_said(broken.cause))
        else:
            assert self._surroundings is not None
            await fresh.open(self._surroundings)
            names.update(await fresh.list())
            old, self._current, self._broken = self._current, fresh, None
            await old.aclose()
        self._generation += 1
        self._given.clear()
        took = round((time.perf_counter() - began) * 1000, 1)
        now = await self._current.list()
        for name in sorted(names):
            if self._surroundings is not None:
                self._surroundings.changed(name)
            if name not in now:
                self._logger.info("function is gone", function=name)
            elif self._broken is None:
                self._logger.info("code reloaded", function=name, generation=self._generation, milliseconds=took)

    async def _loaded(self) -> Fetcher:
        loading = asyncio.ensure_future(_on_a_thread(lambda: self._modules.anew(self._load)))
        done, _ = await asyncio.wait([loading], timeout=_SLOW)
        if not done:
            self._logger.warning("code is still being loaded", target=self._text, seconds=_SLOW)
        return await loading

    def _load(self) -> Fetcher:
        """Load the target; runs on a thread.

        :raises CodeBroken: it cannot be loaded.
        """
        try:
            return load_target(self._text)
        except TargetError as failure:
            cause = failure.__cause__ or ImportError(str(failure))
            raise CodeBroken(self._module, cause.with_traceback(_users_part(cause.__traceback__))) from None

    @property
    def _logger(self) -> Any:
        assert self._surroundings is not None
        return self._surroundings.logger


class _Modules:
    """The modules below a folder that the target has loaded, apart from those that were there before."""

    def __init__(self, before: frozenset[str]) -> None:
        self._before = before
        self._files: dict[str, tuple[int, int, int] | None] = {}
        self.folder = Path()

    def note(self, began: int) -> None:
        """Take down the files of all that is loaded.

        :param began: when loading did, in nanoseconds since the epoch: what was saved since may have been read before.
        """
        modules = [module for name, module in list(sys.modules.items()) if self._is_users(name, module)]
        self._files = {file: _facts(file) for module in modules if (file := getattr(module, "__file__", None))}
        for file, facts in self._files.items():
            if facts is not None and facts[0] >= began:
                self._files[file] = None

    def changed(self) -> bool:
        """Say whether a file that was loaded is another now, or gone."""
        return any(facts is None or facts != _facts(file) for file, facts in self._files.items())

    def anew(self, load: Callable[[], Fetcher]) -> Fetcher:
        """Have all of them imported again; where that fails, the old ones are back for those that still run."""
        with _ONE_AT_A_TIME:
            began = time.time_ns()
            old = self._forget()
            importlib.invalidate_caches()
            linecache.checkcache()
            try:
                loaded = load()
                self.note(began)
                return loaded
            except BaseException:
                self._forget()
                sys.modules.update(old)
                raise

    def _forget(self) -> Mapping[str, ModuleType]:
        users = {name: module for name, module in list(sys.modules.items()) if self._is_users(name, module)}
        for name in users:
            sys.modules.pop(name, None)
        return users

    def _is_users(self, name: str, module: ModuleType) -> bool:
        if name in self._before or name == "serverfull" or name.startswith("serverfull."):
            return False
        try:
            places = [module.__file__] if getattr(module, "__file__", None) else list(module.__path__)
        except Exception:  # something that is no module, or one without a file
            return False
        return any(self._is_below(Path(place)) for place in places if isinstance(place, str))

    def _is_below(self, path: Path) -> bool:
        if not path.is_relative_to(self.folder):
            return False
        return not _FOREIGN.intersection(path.relative_to(self.folder).parts)


def _facts(file: str) -> tuple[int, int, int] | None:
    try:
        told = os.stat(file)  # noqa: PTH116 - a text, as modules have it
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size, told.st_ino


async def _on_a_thread(load: Callable[[], Fetcher]) -> Fetcher:
    """Run what may never end; nobody waits for its thread."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Fetcher] = loop.create_future()

    def tell(fetcher: Fetcher | None, failure: BaseException | None) -> None:
        if result.done():
            return
        if fetcher is None:
            assert failure is not None
            result.set_exception(failure)
        else:
            result.set_result(fetcher)

    def run() -> None:
        try:
            loaded, failure = load(), None
        except BaseException as raised:
            loaded, failure = None, raised
        loop.call_soon_threadsafe(tell, loaded, failure)

    contextvars.Context().run(threading.Thread(target=run, name="serverfull-reload", daemon=True).start)
    return await result


def _raising(broken: CodeBroken, function: Function) -> Handler:
    """Make the handler of a function whose code cannot be loaded."""

    async def handler(event: Any, context: Any = None) -> Any:
        del event, context
        raise CodeBroken(broken.module, broken.cause)

    handler.__module__, _, handler.__qualname__ = function.handler_name.rpartition(".")
    return handler


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and not of_users(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _said(cause: BaseException) -> str:
    if isinstance(cause, SyntaxError):
        return f"{cause.filename}, line {cause.lineno}: {cause.msg}"
    try:
        return f"{type(cause).__name__}: {cause}"
    except Exception:  # a broken __str__
        return type(cause).__name__
