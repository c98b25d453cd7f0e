"""A function that lies in a bucket: what is known of it, and what is made of that.

A version is made when it is first wanted, and given when its package is unpacked on this machine; with every look those
that have been made are made anew if they are others now, and old ones are given until then. On the event loop.
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
from serverfull.interfaces import Found, Published

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serverfull.domain.function_documents import DocumentAlias, DocumentVersion
    from serverfull.domain.functions import Function
    from serverfull.domain.objects import StoredObject
    from serverfull.fetchers.s3 import S3Fetcher

SOURCE = "s3"

_REVISIONS = UUID("3c3d8f53-0a3c-4d4e-9f0d-2f4d6a3fbb51")

PATIENCE = 10.0
"""Seconds that a call waits for S3."""


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds for which something is taken as it was seen.

    :param refresh: a function.
    :param absent: that there is no function of a name.
    :param most: a function that nobody could look at meanwhile.
    """

    refresh: float
    absent: float
    most: float


@dataclass(slots=True)
class Made:
    """A version, and what it was made of.

    :param ready: whether its packages are unpacked on this machine.
    """

    of: tuple[Any, ...]
    function: Function
    packages: Sequence[tuple[SeenObject, str | None]]
    ready: bool = False


@dataclass(slots=True)
class Folder:
    """What is known of one function.

    :param fetcher: that serves it, and looks at it in the background.
    :param place: its folder in the bucket, behind the prefix.
    :param name: the function's.
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
    made: dict[str, Made] = field(default_factory=dict)
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
        return Found(name=self.name, source=SOURCE, place=place, failure=failure)

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
        self.made[number] = Made(of, function, packages, ready=not packages)
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

    async def _unpack(self, number: str, made: Made) -> None:
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

    def _tell_content(self, made: Made) -> None:
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
