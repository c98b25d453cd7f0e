"""Functions that lie in a bucket: by hand, or as a host with a code store in S3 publishes them.

::

    PREFIX<name>/function.json                      what the function is; may be left out
    PREFIX<name>/code.zip                           its package, unless the document names another object
    PREFIX<account>/<region>/<name>/…               the same, of that account in that region alone
    PREFIXcode/<sha256>.zip                         packages by their content

What is known of a name is served for as long as it is young. Then the next call has it looked at again, in the
background, and is served what is known; what is too old, or was not there, is waited for. A look is one request where
nothing has changed. What S3 cannot say leaves everything as it was.

Everything here runs on the event loop; a `Bucket` does the work elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.names import LATEST
from serverfull.errors import (
    NotFoundError,
    SourceUnavailable,
)
from serverfull.fetchers.s3_folders import SOURCE, Ages, Folder
from serverfull.fetchers.static import is_name
from serverfull.interfaces import Fetcher, Found, Published

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serverfull.domain.functions import Function
    from serverfull.domain.records import Partition
    from serverfull.interfaces import Bucket, Surroundings

REFRESH, ABSENT, MAX_AGE = 2.0, 2.0, 60.0
"""The ages that the settings have by default."""

_MOST_ABSENT = 10_000
"""Names that are not there and are remembered: callers choose them freely."""

_AT_ONCE = 16
"""Functions of a listing that are looked at together."""

_LATELY = 30.0
"""Seconds for which a failure counts of what nobody has asked for again."""

_SWEEP_EVERY = 300.0
"""Seconds between two deletions of packages on this machine that are not needed any more."""


class S3Fetcher(Fetcher):
    """Serves the functions of a bucket, and takes up what changes there. The management API cannot write them.

    Their code runs as that of deployed functions does, where the setting ``execution.mode`` says.

    :param bucket: reads it; closed with the fetcher.
    :param prefix: what all keys begin with, such as ``team/functions``; a slash follows it.
    :param region: where functions of everybody reach AWS by default; None: what the host's settings say.
    :param refresh: seconds for which a function is taken as it was; None: the setting ``s3.refresh``.
    :param absent: seconds for which a name that was not there is taken to be none; None: ``s3.absent``.
    :param max_age: seconds after which a function is not called before it was looked at; None: ``s3.max_age``.
    """

    source = SOURCE

    def __init__(
        self,
        bucket: Bucket,
        prefix: str = "",
        *,
        region: str | None = None,
        refresh: float | None = None,
        absent: float | None = None,
        max_age: float | None = None,
    ) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.region = region or "us-east-1"
        self.ages = Ages(refresh or REFRESH, absent or ABSENT, max_age or MAX_AGE)
        self._given = (region, refresh, absent, max_age)
        self.folders: dict[str, Folder] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: WeakSet[DeployedHandler] = WeakSet()
        self._sweep_at: float | None = None
        self._surroundings: Surroundings | None = None
        self._troubles: dict[str, float] = {}  # when each place could last not be seen

    async def open(self, surroundings: Surroundings) -> None:
        """Take what the host has for it."""
        self._surroundings = surroundings
        settings = surroundings.settings
        region, refresh, absent, max_age = self._given
        self.region = region or settings.functions.region
        ages = settings.s3
        self.ages = Ages(refresh or ages.refresh, absent or ages.absent, max_age or ages.max_age)

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function of that name that is everybody's.

        :raises NotFoundError: there is none, or no such version or alias of it.
        :raises FunctionNotReady: its document or its package cannot be used, or the package is still on its way.
        :raises SourceUnavailable: S3 has never said how it is, and does not now.
        """
        folder = self.folders.get(name)
        if folder is not None and time.monotonic() < folder.due:
            function = folder.ready.get(qualifier)
            if function is not None:
                return function
        return await self.find("", name, qualifier)

    async def find(self, own: str, name: str, qualifier: str | None) -> Function:
        """Give a function, looking where it has to be looked.

        :param own: what the folders of the caller's account and region begin with, which come first; empty: none.
        """
        try:
            folder = await self._find_folder(own, name)
        except NotFoundError:
            raise NotFoundError(name if qualifier in (None, LATEST) else f"{name}:{qualifier}") from None
        return await folder.version(qualifier)

    async def _find_folder(self, own: str, name: str) -> Folder:
        everybodys = self._folder(name, name)
        if own:
            folder = self._folder(f"{own}{name}", name)
            everybodys.begin_where_due()  # meanwhile
            await folder.refreshed(hurried=everybodys.served)
            if not folder.absent:
                return folder
        await everybodys.refreshed()
        if everybodys.absent:
            raise NotFoundError(name)
        return everybodys

    def _folder(self, place: str, name: str) -> Folder:
        folder = self.folders.get(place)
        if folder is None:
            if len(self.folders) > _MOST_ABSENT:
                for absent in [other for other, folder in self.folders.items() if folder.absent]:
                    del self.folders[absent]
            folder = self.folders[place] = Folder(self, place, name)
        return folder

    def folder_now(self, place: str) -> Folder | None:
        """Give what is known of a function, if that is young; None: it has to be looked at."""
        folder = self.folders.get(place)
        return folder if folder is not None and time.monotonic() < folder.due else None

    def lacks(self, name: str) -> bool:
        """Say whether there was no function of that name a moment ago."""
        folder = self.folder_now(name)
        return folder is not None and folder.absent

    async def published(self, name: str) -> Published:
        """Say what the document has."""
        return await self.published_at("", name)

    async def published_at(self, own: str, name: str) -> Published:
        """Say which versions and aliases a function has; as `find`.

        :raises NotFoundError: there is no such function.
        """
        return (await self._find_folder(own, name)).published()

    async def list(self) -> Mapping[str, Function]:
        """Give every function that is everybody's."""
        return await self.listed("")

    async def listed(self, own: str) -> Mapping[str, Function]:
        """Give every function of a partition, or of everybody; their packages are fetched when they are called."""
        folders = await self._looked_through(own)
        return {folder.name: folder.made[LATEST].function for folder in folders if LATEST in folder.made}

    async def survey(self) -> Sequence[Found]:
        """Say what there is, and why some of it cannot be served."""
        return await self.surveyed("")

    async def surveyed(self, own: str) -> Sequence[Found]:
        """Say what there is for a partition, or for everybody."""
        return [folder.found() for folder in await self._looked_through(own)]

    async def _looked_through(self, own: str) -> Sequence[Folder]:
        """Look what there is for a partition, or for everybody.

        :raises SourceUnavailable: S3 does not say.
        """
        try:
            names = [name for name in await self.bucket.folders(f"{self.prefix}{own}") if is_name(name)]
        except SourceUnavailable as failure:
            self._note_trouble("", failure.message)
            raise
        self._note_success("")
        found: list[Folder] = []
        for at in range(0, len(names), _AT_ONCE):
            folders = [self._folder(f"{own}{name}", name) for name in names[at : at + _AT_ONCE]]
            await asyncio.gather(*(folder.refreshed() for folder in folders))
            found += [folder for folder in folders if not folder.absent]
        return found

    def at(self, partition: Partition) -> Fetcher:
        """Give the functions of an account in a region, and those of everybody that they do not hide."""
        return _View(self, partition)

    async def aclose(self) -> None:
        """Stop looking, and give back what was unpacked."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.bucket.aclose()

    def begin(self, folder: Folder) -> asyncio.Task[None]:
        """Look at a function in the background."""
        task = asyncio.get_running_loop().create_task(self._look(folder))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self, folder: Folder) -> None:
        try:
            await folder.look()
            self._note_success(folder.place)
        except SourceUnavailable as failure:
            folder.unseen(failure)
            if folder.served:  # of others the caller is told
                self._note_trouble(folder.place, failure.message)
        except Exception as failure:  # a task's boundary: what was seen last is served on
            folder.unseen(SourceUnavailable())
            self.log("error", "function in S3 not looked at", function=folder.name, exc_info=failure)
        await self._sweep()

    async def _sweep(self) -> None:
        """Delete packages of functions that are others by now, from time to time."""
        if self._sweep_at is None or time.monotonic() < self._sweep_at:
            return
        handlers = tuple(self._handlers)
        others = len(handlers) > sum(len(folder.made) for folder in self.folders.values())
        self._sweep_at = time.monotonic() + _SWEEP_EVERY if others else None  # an old one is still at work
        try:
            await self.bucket.keep_only({place for one in handlers for place in (one.root, *one.layers)})
        except OSError as failure:
            self.log("warning", "packages from S3 not swept", exc_info=failure)

    def _note_trouble(self, place: str, reason: str) -> None:
        """Say that S3 does not answer as it should, unless that is said already."""
        if not self._troubles:
            self.log("error", "functions in S3 cannot be looked up: what is known is served on", reason=reason)
        self._troubles[place] = time.monotonic()

    def _note_success(self, place: str) -> None:
        """Say that S3 answers again, when nothing is left that it lately refused."""
        if not self._troubles:
            return
        lately = time.monotonic() - _LATELY
        self._troubles = {other: at for other, at in self._troubles.items() if other != place and at > lately}
        if not self._troubles:
            self.log("info", "functions in S3 can be looked up again", where=f"s3://{self.bucket.name}/{self.prefix}")

    def log(self, level: str, event: str, **fields: Any) -> None:
        """Write to the host's log, if there is a host."""
        if self._surroundings is not None:
            getattr(self._surroundings.logger, level)(event, **fields)

    def keep(self, function: Function) -> None:
        """Note a function whose package must stay."""
        if isinstance(function.handler, DeployedHandler):
            self._handlers.add(function.handler)

    def changed(self, name: str) -> None:
        """Tell the host that a function is another one, or gone."""
        if self._sweep_at is None:
            self._sweep_at = time.monotonic() + _SWEEP_EVERY
        if self._surroundings is not None:
            self._surroundings.changed(name)


class _View(Fetcher):
    """The functions of an account in a region, before those of everybody."""

    source = S3Fetcher.source

    def __init__(self, fetcher: S3Fetcher, partition: Partition) -> None:
        self._fetcher = fetcher
        self._own = f"{partition.account}/{partition.region}/"
        self._folders = fetcher.folders

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function of that name; as `S3Fetcher.fetch`."""
        now = time.monotonic()
        folder = self._folders.get(self._own + name)
        if folder is not None and now < folder.due and folder.absent:
            folder = self._folders.get(name)
        if folder is not None and now < folder.due:
            function = folder.ready.get(qualifier)
            if function is not None:
                return function
        return await self._fetcher.find(self._own, name, qualifier)

    def lacks(self, name: str) -> bool:
        """Say whether neither had a function of that name a moment ago."""
        own = self._fetcher.folder_now(f"{self._own}{name}")
        return own is not None and own.absent and self._fetcher.lacks(name)

    async def published(self, name: str) -> Published:
        """Say which versions and aliases the function has that is called from there."""
        return await self._fetcher.published_at(self._own, name)

    async def list(self) -> Mapping[str, Function]:
        """Give every function that can be called from there."""
        return {**await self._fetcher.list(), **await self._fetcher.listed(self._own)}

    async def survey(self) -> Sequence[Found]:
        """Say what can be called from there, and why some of it cannot."""
        own = await self._fetcher.surveyed(self._own)
        names = {found.name for found in own}
        return [*own, *(found for found in await self._fetcher.survey() if found.name not in names)]
