"""Says that files have changed: one `Watcher` for a host, with one thread and one native watcher for all roots.

Nothing is started, imported or opened before the first `Watcher.watch`. From then on a thread waits for what the kernel
says, collects bursts, keeps the list of watched folders true, and has callbacks called on the event loop; whatever is
not about that happens on the thread. Roots are handed to the thread in a list behind a lock.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from serverfull.interfaces import Watch, Watching
from serverfull.reload.extra import check_installed

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

    from serverfull.reload.trees import Rules, Tree

_TURN = 0.1
"""Seconds after which the thread looks whether there is a new root, or an end."""

_PATIENCE = 10
"""A burst that does not end is told after so many times the debounce."""

_LOOK_AROUND = 1.0
"""Seconds after which roots are compared with what was watched: a folder far above one may have been moved away."""

_MANY = 20_000
"""Folders below a root from which on it is said that they are many: it may be another folder than was meant."""

_FLOOD = 8192
"""Changes of a burst from which on the kernel may have left some out: it keeps 16,384 at most."""

_TRIES = 5
"""How often folders are listed again because one of them has gone meanwhile."""


class WatchLogger(Protocol):
    """What is needed of a logger: a structlog one fits."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""

    def error(self, event: str, **fields: Any) -> Any:
        """Log an event with its fields."""


class _Watch(Watch):
    """One root of a `Watcher`; all but ``tree`` is used on the loop."""

    def __init__(
        self, watcher: Watcher, root: Path, changed: Callable[[], None], patterns: tuple[Sequence[str], Sequence[str]]
    ) -> None:
        self._watcher = watcher
        self.root = root
        self.changed = changed
        self.patterns = patterns
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.since = time.time_ns()
        self.tree: Tree | None = None
        self._active = asyncio.Event()

    async def active(self) -> None:
        await self._active.wait()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._active.set()
            self._watcher.leave(self)

    def activated(self) -> None:
        self._active.set()

    def tell(self) -> None:
        if self.closed:
            return
        try:
            self.changed()
        except Exception as failure:
            self._watcher.logger.error("a change was not taken up", root=str(self.root), exc_info=failure)


class Watcher(Watching):
    """Watches folders for their callers.

    :param debounce: seconds without a change after which a burst is over.
    :param include: patterns as in ``.gitignore`` of files that count, below each root; empty: all do.
    :param exclude: patterns of what does not count.
    :param gitignore: whether ``.gitignore`` files at and below a root count.
    :param polling: look at all files again and again instead of asking the kernel, which hears nothing of what other
        machines do on a network mount.
    :param poll_interval: seconds between two such looks.
    :param logger: hears of failing callbacks, and of what cannot be watched.
    """

    def __init__(
        self,
        *,
        debounce: float,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        gitignore: bool = True,
        polling: bool = False,
        poll_interval: float = 1.0,
        logger: WatchLogger,
    ) -> None:
        self.logger = logger
        self._debounce_ms = max(1, round(debounce * 1000))
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._gitignore = gitignore
        self._polling = polling
        self._poll_ms = max(1, round(poll_interval * 1000))
        self._lock = threading.Lock()
        self._joining: list[_Watch] = []
        self._left = False
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        # The thread's own:
        self._watches: list[_Watch] = []
        self._native: RustNotify | None = None
        self._folders: frozenset[str] = frozenset()
        self._by_path: dict[str, list[_Watch]] = {}
        self._rules: dict[tuple[tuple[str, ...], tuple[str, ...]], Rules] = {}
        self._looked = 0.0

    def watch(
        self, root: Path, changed: Callable[[], None], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> Watch:
        check_installed("watching folders for changes")
        watch = _Watch(self, root.absolute(), changed, (include, exclude))
        with self._lock:
            if self._end.is_set():
                raise RuntimeError("the watcher is closed")
            self._joining.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="serverfull-watcher", daemon=True)
                contextvars.Context().run(self._thread.start)
        return watch

    def leave(self, _: Watch) -> None:
        """Hear that a root is not to be watched any more."""
        with self._lock:
            self._left = True

    async def aclose(self) -> None:
        self._end.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        while not self._end.is_set():
            with self._lock:
                joining, self._joining = self._joining, []
                left, self._left = self._left, False
            try:
                if joining or left or self._native is None:
                    self._take_up(joining)
                self._turn()
            except Exception as failure:
                self.logger.error("watching failed, and begins anew", exc_info=failure)
                with self._lock:
                    self._joining = joining + self._joining
                if self._native is not None:
                    self._native.close()
                    self._native = None
                self._end.wait(_LOOK_AROUND)
        if self._native is not None:
            self._native.close()

    def _take_up(self, joining: list[_Watch]) -> None:
        from serverfull.reload.trees import Tree

        for watch in joining:
            watch.tree = Tree(watch.root, self._rules_of(*watch.patterns))
        self._watches = [watch for watch in dict.fromkeys((*self._watches, *joining)) if not watch.closed]
        self._look(joining)
        self._arm(joining)
        for watch in joining:
            assert watch.tree is not None
            if len(watch.tree.folders) > _MANY:
                self.logger.warning(
                    "many folders are watched",
                    root=str(watch.root),
                    folders=len(watch.tree.folders),
                    hint="reload.exclude takes patterns of those that nobody edits",
                )
            if watch.tree.look(watch.since):  # between the caller's first look and the kernel's
                self._tell(watch)
            self._later(watch, watch.activated)

    def _rules_of(self, include: Sequence[str], exclude: Sequence[str]) -> Rules:
        from serverfull.reload.trees import Rules

        key = (*self._include, *include), (*self._exclude, *exclude)
        if key not in self._rules:
            self._rules[key] = Rules(*key, self._gitignore)
        return self._rules[key]

    def _turn(self) -> None:
        assert self._native is not None
        found = self._native.watch(self._debounce_ms * _PATIENCE, self._debounce_ms, round(_TURN * 1000), self._end)
        concerned: set[_Watch] = set()
        to_look: set[_Watch] = set()
        if not isinstance(found, str):
            self._sort_out(found, concerned, to_look)
        now = time.monotonic()
        if now - self._looked > _LOOK_AROUND:
            self._looked = now
            moved = [watch for watch in self._watches if watch.tree is not None and watch.tree.moved()]
            concerned.update(moved)
            to_look.update(moved)
        if to_look:
            self._look(to_look)
            self._arm(to_look, again=True)
        for watch in concerned:
            self._tell(watch)

    def _sort_out(self, found: set[tuple[int, str]], concerned: set[_Watch], to_look: set[_Watch]) -> None:
        if len(found) >= _FLOOD:
            concerned.update(self._watches)
            to_look.update(self._watches)
            return
        for kind, path in found:
            for where in (path, os.path.dirname(path)):
                for watch in self._by_path.get(where, ()):
                    assert watch.tree is not None
                    counts, other = watch.tree.effect(kind, path)
                    if counts:
                        concerned.add(watch)
                    if other:
                        to_look.add(watch)

    def _look(self, watches: Iterable[_Watch]) -> None:
        for watch in watches:
            assert watch.tree is not None
            watch.tree.look()
        self._by_path = {}
        for watch in self._watches:
            assert watch.tree is not None
            for folder in watch.tree.watched:
                known = self._by_path.setdefault(folder, [])
                if watch not in known:
                    known.append(watch)

    def _arm(self, watches: Collection[_Watch], *, again: bool = False) -> None:
        """Have the kernel watch what is to be watched now, without a gap.

        :param watches: those whose trees have just been looked at.
        :param again: also where the folders have the same names: they may be others.
        """
        for _ in range(_TRIES):
            folders = self._nearest()
            if folders == self._folders and self._native is not None and not again:
                return
            fresh = self._made(sorted(folders))
            if fresh is not None:
                old, self._native, self._folders = self._native, fresh, folders
                if old is not None:
                    self._close(old)
                again = False
            self._look(watches if fresh is not None else self._watches)  # what has come meanwhile, or gone

    def _nearest(self) -> frozenset[str]:
        """Give the folders to watch; of what is not there, the nearest one that is."""
        folders = set()
        for folder in self._by_path:
            there = folder
            while not os.path.isdir(there):
                there = os.path.dirname(there)
            folders.add(there)
        return frozenset(folders)

    def _made(self, folders: list[str]) -> RustNotify | None:
        """Make a native watcher; None: a folder has gone meanwhile."""
        from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

        try:
            return RustNotify(folders, False, self._polling, self._poll_ms, False, False)
        except (FileNotFoundError, PermissionError):
            return None
        except (OSError, WatchfilesRustInternalError) as failure:
            if self._polling:
                raise
            self._polling = True
            self.logger.warning(
                "changes are looked for by polling",
                reason=str(failure).partition(" about")[0],
                folders=len(folders),
                hint="the kernel watches no more: raise fs.inotify.max_user_watches or max_user_instances, or exclude "
                "folders with reload.exclude",
            )
            return self._made(folders)

    def _close(self, old: RustNotify) -> None:
        """End a native watcher that another has replaced; what it still has to say is about what was looked at."""
        found = old.watch(1, 1, 1, None)
        if not isinstance(found, str):
            concerned: set[_Watch] = set()
            self._sort_out(found, concerned, set())
            for watch in concerned:
                self._tell(watch)
        old.close()

    def _tell(self, watch: _Watch) -> None:
        self._later(watch, watch.tell)

    @staticmethod
    def _later(watch: _Watch, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # its loop has ended, and it forgot to close
            watch.loop.call_soon_threadsafe(call)
