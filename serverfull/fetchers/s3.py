"""Functions that lie in a bucket: by hand, or as a host with a code store in S3 publishes them.

::

    PREFIX<name>/function.json                      what the function is; may be left out
    PREFIX<name>/code.zip                           its package, unless the document names another object
    PREFIX<account>/<region>/<name>/…               the same, of that account in that region alone
    PREFIXcode/<sha256>.zip                         packages by their content

What is known of a name is served for as long as it is young. Then the next call has it looked at again, in the
background, and is served what is known; what is too old, or was not there, is waited for. A look is one request where
nothing has changed. What S3 cannot say leaves everything as it was. A version is made when it is first wanted, and
given when its package is unpacked on this machine; with every look those that have been made are made anew if they are
others now, and old ones are given until then.

Everything here runs on the event loop; a `Bucket` does the work elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5
from weakref import WeakSet

from serverfull.domain.checksums import code_sha256, is_sha256
from serverfull.domain.deployed import Alias
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.function_documents import CODE, DOCUMENT, PACKAGES, FunctionDocument, parse_document
from serverfull.domain.manifests import completed, function_of
from serverfull.domain.names import LATEST
from serverfull.domain.objects import SeenObject
from serverfull.domain.source_code import SourceCode
from serverfull.errors import (
    FunctionNotReady,
    InvalidParameterValue,
    ManifestInvalid,
    NotFoundError,
    SourceUnavailable,
)
from serverfull.fetchers.static import is_name
from serverfull.interfaces import Fetcher, Found, Published

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serverfull.domain.function_documents import DocumentAlias, DocumentVersion
    from serverfull.domain.functions import Function
    from serverfull.domain.objects import StoredObject
    from serverfull.domain.records import Partition
    from serverfull.interfaces import Bucket, Surroundings

REFRESH, ABSENT, MAX_AGE = 2.0, 2.0, 60.0
"""The ages that the settings have by default."""

_REVISIONS = UUID("3c3d8f53-0a3c-4d4e-9f0d-2f4d6a3fbb51")

PATIENCE = 10.0
"""Seconds that a call waits for S3."""

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

    source = "s3"

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
        self.ages = _Ages(refresh or REFRESH, absent or ABSENT, max_age or MAX_AGE)
        self._given = (region, refresh, absent, max_age)
        self.folders: dict[str, _Folder] = {}
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
        self.ages = _Ages(refresh or ages.refresh, absent or ages.absent, max_age or ages.max_age)

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

    async def _find_folder(self, own: str, name: str) -> _Folder:
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

    def _folder(self, place: str, name: str) -> _Folder:
        folder = self.folders.get(place)
        if folder is None:
            if len(self.folders) > _MOST_ABSENT:
                for absent in [other for other, folder in self.folders.items() if folder.absent]:
                    del self.folders[absent]
            folder = self.folders[place] = _Folder(self, place, name)
        return folder

    def folder_now(self, place: str) -> _Folder | None:
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

    async def _looked_through(self, own: str) -> Sequence[_Folder]:
        """Look what there is for a partition, or for everybody.

        :raises SourceUnavailable: S3 does not say.
        """
        try:
            names = [name for name in await self.bucket.folders(f"{self.prefix}{own}") if is_name(name)]
        except SourceUnavailable as failure:
            self._note_trouble("", failure.message)
            raise
        self._note_success("")
        found: list[_Folder] = []
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

    def begin(self, folder: _Folder) -> asyncio.Task[None]:
        """Look at a function in the background."""
        task = asyncio.get_running_loop().create_task(self._look(folder))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self, folder: _Folder) -> None:
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


@dataclass(frozen=True, slots=True)
class _Ages:
    refresh: float
    absent: float
    most: float


@dataclass(slots=True)
class _Made:
    """A version, and what it was made of.

    :param ready: whether its packages are unpacked on this machine.
    """

    of: tuple[Any, ...]
    function: Function
    packages: Sequence[tuple[SeenObject, str | None]]
    ready: bool = False


@dataclass(slots=True)
class _Folder:
    """What is known of one function.

    :ivar due: when it is to be looked at again; a monotonic time.
    :ivar ready: what can be called, by the qualifiers that callers give.
    :ivar absent: whether there is no function.
    :ivar made: its versions, as far as somebody wanted them.
    """

    fetcher: S3Fetcher
    place: str
    name: str
    due: float = 0.0
    absent: bool = False
    ready: dict[str | None, Function] = field(default_factory=dict)
    made: dict[str, _Made] = field(default_factory=dict)
    _seen_at: float | None = None
    _looking: asyncio.Task[None] | None = None
    _unseen: SourceUnavailable | None = None
    _content: StoredObject | None = None
    _document: FunctionDocument | None = None
    _failures: dict[str, str] = field(default_factory=dict)
    _refused: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _broken: bool = False
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def served(self) -> bool:
        """Whether there was such a function when it was last seen."""
        return self._seen_at is not None and not self.absent

    def begin_where_due(self) -> None:
        """Have it looked at again where it is time."""
        now = time.monotonic()
        if self._looking is None and now >= self.due:
            self._looking = self.fetcher.begin(self)
            self.due = now + PATIENCE

    async def refreshed(self, *, hurried: bool = False) -> None:
        """Have it looked at again where it is time, and wait for that where what is known is not enough.

        :param hurried: whether the caller has something else to give where there was nothing here.
        :raises SourceUnavailable: nothing is known.
        """
        self.begin_where_due()
        if self._looking is not None and self._is_waited_for(hurried):
            await asyncio.wait([self._looking], timeout=PATIENCE)
        if self._seen_at is None:
            raise self._unseen or SourceUnavailable(f"{self._where()} was not seen within {PATIENCE:g} s.")

    def _is_waited_for(self, hurried: bool) -> bool:
        if self._seen_at is None:
            return True
        if self._unseen is not None:
            return False  # S3 did not say a moment ago
        return not hurried if self.absent else time.monotonic() - self._seen_at > self.fetcher.ages.most

    def unseen(self, failure: SourceUnavailable) -> None:
        """Note that S3 could not say how it is; it is asked again soon."""
        self._looking, self._unseen = None, failure
        self.due = time.monotonic() + self.fetcher.ages.refresh

    def found(self) -> Found:
        """Say what it is, for listings."""
        failure = None if LATEST in self.made else self._failures.get(LATEST, "there is no $LATEST")
        place = f"s3://{self.fetcher.bucket.name}/{self.fetcher.prefix}"
        return Found(name=self.name, source=S3Fetcher.source, place=place, failure=failure)

    def published(self) -> Published:
        """Say which versions and aliases it has, as far as its document can be read."""
        if self._document is None:
            return Published()
        numbers = sorted(int(number) for number in self._document.versions if number != LATEST)
        aliases = {name: self._alias(name, alias) for name, alias in sorted(self._document.aliases.items())}
        return Published(numbers, aliases)

    def _alias(self, name: str, alias: DocumentAlias) -> Alias:
        revision = str(uuid5(_REVISIONS, f"{self._where()}{name} {alias}"))
        return Alias(
            function=self.name,
            name=name,
            version=alias.version,
            description=alias.description,
            weights=alias.weights,
            revision_id=revision,
        )

    async def version(self, qualifier: str | None) -> Function:
        """Give the version that a qualifier means, with its package on this machine.

        :raises NotFoundError: there is none.
        :raises FunctionNotReady: it cannot be used, or is still on its way.
        """
        number = self._number(qualifier)
        try:
            async with asyncio.timeout(PATIENCE):
                if number not in self.made and number not in self._failures:
                    await self._make(number)
                made = self.made.get(number)
                if made is not None and not made.ready:
                    await self._unpack(number, made)
        except TimeoutError:
            raise FunctionNotReady(self.name, "Pending", f"Its code is on its way from {self._where()}.") from None
        made = self.made.get(number)
        if made is None or not made.ready:
            raise FunctionNotReady(self.name, "Failed", self._failures.get(number, "Its code is another one by now."))
        self._show()
        return made.function

    def _number(self, qualifier: str | None) -> str:
        if qualifier is None or qualifier == LATEST or self._document is None:
            return LATEST
        alias = self._document.aliases.get(qualifier)
        number = qualifier if alias is None else alias.version
        if alias is not None and alias.weights:
            chance = random.random()  # noqa: S311 - this spreads load and guards nothing
            for other, weight in alias.weights.items():
                chance -= weight
                if chance < 0:
                    return other
        if number not in self._document.versions:
            raise NotFoundError(f"{self.name}:{qualifier}")
        return number

    async def look(self) -> None:
        """Look how it is, and make anew what is another one than before.

        :raises SourceUnavailable: S3 does not say.
        """
        bucket, ages = self.fetcher.bucket, self.fetcher.ages
        content = await bucket.read(f"{self._key()}{DOCUMENT}", self._content)
        package = None if content is not None else await bucket.look(f"{self._key()}{CODE}")
        if content is None and package is None:
            self._gone()
        else:
            self.absent = False
            await self._take_up(content)
        now = time.monotonic()
        self._looking, self._unseen, self._seen_at = None, None, now
        self.due = now + (ages.absent if self.absent else ages.refresh)

    def _gone(self) -> None:
        if not self.absent and self._seen_at is not None:
            self.fetcher.changed(self.name)
        self.absent = True
        self._content = self._document = None
        for known in (self.ready, self.made, self._failures, self._refused):
            known.clear()

    async def _take_up(self, content: StoredObject | None) -> None:
        if content is not self._content or self._document is None:
            self._content, self._broken = content, False
            try:
                self._document = parse_document(content and content.content, f"{self._where()}{DOCUMENT}")
            except ManifestInvalid as wrong:
                self._broken = True
                self._failed(LATEST, str(wrong))
        if self._broken:
            return  # nor is a package taken up that may go with the next document
        assert self._document is not None
        versions = self._document.versions
        for number in [number for number in self.made if number not in versions]:
            del self.made[number]
            self.fetcher.changed(self.name)
        self._failures = {number: why for number, why in self._failures.items() if number in versions}
        for number in {LATEST, *self.made, *self._failures}:
            before = self.made.get(number)
            await self._make(number)
            made = self.made.get(number)
            if made is not None and before is not None and before.ready and not made.ready:
                self.made[number] = before  # is given until the new one can be
                await self._unpack(number, made)
        self._show()

    async def _make(self, number: str) -> None:
        """Make a version anew, if it is another one than before; where that fails, it stays as it was."""
        async with self._making:  # or calls that come together would get several
            if self._document is None or number not in self._document.versions:
                return
            try:
                await self._make_of(number, self._document.versions[number])
            except ManifestInvalid as wrong:
                self._failed(number, str(wrong))
            except KeyError:
                self._failed(number, f"Its code in {self._where()} changes just now.")

    async def _make_of(self, number: str, version: DocumentVersion) -> None:
        of, packages = await self._seen(version)
        before = self.made.get(number)
        if before is not None and before.of == of:
            self._failures.pop(number, None)
            return
        if self._refused.get(number) == of:
            return
        try:
            function = await self._function(number, version, packages)
        except InvalidParameterValue as broken:
            self._refused[number] = of
            self._failed(number, broken.message)
            return
        if before is not None:
            function = replace(function, generation=before.function.generation + 1)
        self._failures.pop(number, None)
        self.made[number] = _Made(of, function, packages, ready=not packages)
        self.fetcher.keep(function)

    async def _seen(self, version: DocumentVersion) -> tuple[tuple[Any, ...], Sequence[tuple[SeenObject, str | None]]]:
        """Give what a version is made of, and the packages in that."""
        packages = []
        if not version.image_uri:
            key = self._key(CODE) if version.key is None else f"{self.fetcher.prefix}{version.key}"
            packages.append((await self._package(key, version.sha256, version.size), version.sha256))
            for layer in version.manifest.layers:
                sha256 = _content_of(layer)
                packages.append((await self._package(f"{self.fetcher.prefix}{layer}", sha256, None), sha256))
        names = tuple(sha256 or seen for seen, sha256 in packages)
        return (version.manifest, version.image_uri, names), packages

    async def _package(self, key: str, sha256: str | None, size: int | None) -> SeenObject:
        """See a package; one that is named after its content is what it is."""
        if sha256 is not None and _content_of(key.removeprefix(self.fetcher.prefix)) == sha256:
            return SeenObject(key, sha256, size or 0, 0.0)
        seen = await self.fetcher.bucket.look(key)
        where = f"s3://{self.fetcher.bucket.name}/{key}"
        if seen is None:
            raise ManifestInvalid(where, "there is no such object")
        if size is not None and seen.size != size:
            raise ManifestInvalid(where, f"it has {seen.size} bytes, and CodeSize says {size}")
        return seen

    async def _function(
        self, number: str, version: DocumentVersion, packages: Sequence[tuple[SeenObject, str | None]]
    ) -> Function:
        bucket, manifest = self.fetcher.bucket, version.manifest
        if version.image_uri:
            source = SourceCode(version.image_uri, 0, "", version.last_modified or _moment(0.0))
            return function_of(
                manifest, Path(), region=self._region(), image_uri=version.image_uri, version=number, source=source
            )
        if manifest.runtime is None or manifest.handler is None:
            root = await bucket.tree(*packages[0])
            names = await asyncio.to_thread(lambda: [path.name for path in root.iterdir()])
            manifest = completed(manifest, names, f"{self._where()}{DOCUMENT}")
        seen, sha256 = packages[0]
        return function_of(
            manifest,
            bucket.place(seen, sha256),
            [bucket.place(*layer) for layer in packages[1:]],
            region=self._region(),
            version=number,
            source=SourceCode(
                f"s3://{bucket.name}/{seen.key}",
                seen.size,
                code_sha256(sha256) if sha256 else "",
                version.last_modified or _moment(seen.changed),
            ),
        )

    async def _unpack(self, number: str, made: _Made) -> None:
        """Bring what a version runs from to this machine; then it is the one that is given."""
        try:
            for package in made.packages:
                await self.fetcher.bucket.tree(*package)
        except KeyError:
            self.due = 0.0  # it has changed since: the next call looks
            return
        except InvalidParameterValue as broken:
            self._refused[number] = made.of
            if self.made.get(number) is made:
                del self.made[number]
            self._failed(number, broken.message)
            return
        before = self.made.get(number)
        if not made.ready:
            self._tell_content(made)
        made.ready = True
        self.made[number] = made
        if before is not None and before is not made:
            self.fetcher.changed(self.name)
            self.fetcher.log("info", "code taken from S3", function=self.name, version=number, where=self._where())

    def _tell_content(self, made: _Made) -> None:
        """Say of a function what its package is, which nobody may have known before it was here."""
        handler = made.function.handler
        assert isinstance(handler, DeployedHandler)
        if isinstance(handler.source, SourceCode) and not handler.source.sha256 and made.packages:
            told = code_sha256(self.fetcher.bucket.sha256_of(handler.root))
            handler.source = replace(handler.source, sha256=told)
            made.function = replace(made.function)  # what was told of the one that was only listed may be kept

    def _failed(self, number: str, why: str) -> None:
        """Say once why a version cannot be used as it lies there; one that could be stays."""
        if self._failures.get(number) == why:
            return
        self._failures[number] = why
        kept = number in self.made
        event = "function in S3 refused: it stays as it was" if kept else "function in S3 cannot be served"
        self.fetcher.log("error", event, function=self.name, version=number, reason=why)

    def _show(self) -> None:
        """Give callers what is ready, under everything that means one version alone."""
        ready: dict[str | None, Function] = {n: made.function for n, made in self.made.items() if made.ready}
        if LATEST in ready:
            ready[None] = ready[LATEST]
        for name, alias in self._document.aliases.items() if self._document is not None else ():
            if not alias.weights and alias.version in ready:
                ready[name] = ready[alias.version]
        self.ready = ready

    def _key(self, name: str = "") -> str:
        return f"{self.fetcher.prefix}{self.place}/{name}"

    def _where(self) -> str:
        return f"s3://{self.fetcher.bucket.name}/{self._key()}"

    def _region(self) -> str:
        own = self.place.split("/")
        return own[1] if len(own) > 1 else self.fetcher.region


def _content_of(key: str) -> str | None:
    """Give the SHA-256 that a package is named after, in hexadecimal."""
    sha256 = key.removeprefix(PACKAGES).removesuffix(".zip")
    return sha256 if is_sha256(sha256) and key.startswith(PACKAGES) else None


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
