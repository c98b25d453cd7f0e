"""Functions that are container images: of this machine's Docker engine, or of registries that it pulls from.

Which image a function is says a `Naming`. It is asked when a function is first wanted, which is when an image is
pulled, and again with a call once what was seen is older than a moment: an image that was built anew under its name is
another one, and so the function. While the engine does not answer, what was seen last stays. All on the event loop;
each question is a task of the fetcher's, so that calls which come together share it, and none of them can end it.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.domain.labels import manifest_of
from serverfull.domain.manifests import function_of
from serverfull.domain.names import LATEST
from serverfull.domain.source_code import SourceCode
from serverfull.errors import FunctionNotReady, ImageUnavailable, InternalFailure, ManifestInvalid, NotFoundError
from serverfull.fetchers.namings import Mapped, Naming, Templated, naming_of
from serverfull.interfaces import Fetcher, Found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from serverfull.domain.functions import Function
    from serverfull.domain.images import ImageFacts
    from serverfull.interfaces import Catalogue, Surroundings

AGE = 2.0
"""Seconds for which what the engine has told is taken as it was."""

NEGATIVE_AGE = 30.0
"""The same where there is no image of a name, or none that can be had: a registry is not asked again with each call."""

PATIENCE = 10.0
"""Seconds that a call waits for an image; it is pulled on when the call has given up."""

_MOST_MISSING = 1_000
"""Names without an image that are remembered: callers choose them."""

_Key: TypeAlias = "tuple[str, str | None]"


@dataclass(slots=True)
class _Known:
    """What was found for a name and a qualifier.

    :param due: when it is to be looked at again.
    :param function: None: there is none.
    :param failure: why there is none although there is an image, or may be one.
    """

    due: float
    function: Function | None = None
    image: ImageFacts | None = None
    failure: str | None = None


class DockerFetcher(Fetcher):
    """Serves container images as functions. The management API cannot write them.

    One of ``images`` and ``template``, or neither: then it is the images that have a label ``serverfull.function``.

    :param images: the image of each function.
    :param template: the image of every function: ``registry/{name}:{qualifier}``.
    :param age: seconds for which what the engine has told is taken as it was.
    :raises TargetNotFound: that names no image.
    :raises ValueError: there are both.
    """

    source = "docker"

    def __init__(self, *, images: Mapping[str, str] | None = None, template: str = "", age: float = AGE) -> None:
        if images is not None and template:
            raise ValueError("a DockerFetcher takes images or a template, not both")
        self._naming: Naming = naming_of("", age)
        if images is not None:
            self._naming = Mapped(images)
        elif template:
            self._naming = Templated(template)
        self._age = age
        self._surroundings: Surroundings | None = None
        self._catalogue: Catalogue | None = None
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._asking: dict[_Key, asyncio.Task[None]] = {}
        self._generations: dict[_Key, int] = {}

    @classmethod
    def of(cls, text: str) -> DockerFetcher:
        """Make one of a TARGET without its ``docker://``: nothing, a template, or ``name=image,name=image``.

        :raises TargetNotFound: it is none of these.
        """
        fetcher = cls()
        fetcher._naming = naming_of(text, fetcher._age)
        return fetcher

    async def open(self, surroundings: Surroundings) -> None:
        """Take the engine of the host.

        :raises ExtraMissing: the package that asks it is not installed.
        """
        self._surroundings = surroundings
        self._catalogue = surroundings.catalogue()

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function of that name; a qualifier is the tag of its image, where there are several.

        :raises NotFoundError: there is no image.
        :raises FunctionNotReady: it cannot be had, its labels are wrong, or it is still being pulled.
        :raises InternalFailure: there is no engine to ask.
        """
        key = name, None if qualifier == LATEST else qualifier
        known = self._known.get(key)
        if known is None or time.monotonic() >= known.due:
            known = await self._asked(key, known)
        if known.failure is not None:
            raise FunctionNotReady(name, "Failed", known.failure)
        if known.function is None:
            raise NotFoundError(name if key[1] is None else f"{name}:{key[1]}")
        return known.function

    def lacks(self, name: str) -> bool:
        """Say whether there was no image for that name a moment ago."""
        known = self._known.get((name, None))
        if known is not None:
            return known.function is None and known.failure is None and time.monotonic() < known.due
        return self._naming.lacks(name)

    async def list(self) -> Mapping[str, Function]:
        """Give every function whose image this machine has; in place of others, nothing is pulled."""
        found = {}
        for name in await self._names():
            known = await self._look(name)
            if known.function is not None:
                found[name] = known.function
        return found

    async def survey(self) -> Sequence[Found]:
        """Say what there is on this machine, and what of it cannot be served."""
        place = self._naming.place
        return [
            Found(name=name, source=self.source, place=place, failure=(await self._look(name)).failure)
            for name in await self._names()
        ]

    async def aclose(self) -> None:
        """End what asks; the engine goes on pulling what it has begun with."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _names(self) -> Sequence[str]:
        return sorted(await self._naming.names(self._engine()))

    def _engine(self) -> Catalogue:
        if self._catalogue is None:
            raise InternalFailure("The images are those of a host's engine, and no host has opened this fetcher.")
        return self._catalogue

    async def _look(self, name: str) -> _Known:
        """Give what is known of a function, having looked at this machine alone."""
        known = self._known.get((name, None))
        if known is None or time.monotonic() >= known.due:
            await self._ask((name, None), pull=False)
        return self._known.get((name, None)) or _Known(0.0)

    async def _asked(self, key: _Key, known: _Known | None) -> _Known:
        """Wait for an answer, or for as long as a call waits; what was seen before will do then."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._ask(key, pull=True))
            task.add_done_callback(partial(self._answered, key))
        await asyncio.wait([task], timeout=PATIENCE)
        if not task.done():
            if known is None or known.function is None:
                raise FunctionNotReady(key[0], "Pending", "Its image is being pulled.")
            return known
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        return self._known.get(key) or _Known(0.0)

    def _answered(self, key: _Key, task: asyncio.Task[None]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # whoever waited for it may have given up

    async def _ask(self, key: _Key, *, pull: bool) -> None:
        known = self._known.get(key)
        was_there = known is not None and known.function is not None
        try:
            image = await self._naming.find(self._engine(), *key, here=was_there or not pull)
            if image is None and was_there and pull:  # it was removed here
                image = await self._naming.find(self._engine(), *key, here=False)
            found = self._found(key, image)
        except ManifestInvalid as wrong:
            found = _Known(time.monotonic() + self._age, failure=str(wrong))
        except ImageUnavailable as refusal:
            failure = None if refusal.missing and isinstance(self._naming, Templated) else str(refusal)
            found = _Known(time.monotonic() + NEGATIVE_AGE, failure=failure)
        except InternalFailure as gone:
            if known is None or not was_there:
                raise
            self._log("warning", "image not looked at", function=key[0], reason=gone.message)
            known.due = time.monotonic() + self._age
            return
        if pull or found.image is not None or found.failure is not None:
            self._keep(key, found)
        elif was_there:
            self._known.pop(key, None)  # the next call pulls it

    def _found(self, key: _Key, image: ImageFacts | None) -> _Known:
        due = time.monotonic() + self._age
        if image is None:
            return _Known(due)
        known = self._known.get(key)
        if known is not None and known.image is not None and _same(known.image, image):
            return replace(known, due=due)
        return _Known(due, self._function(key, image), image)

    def _keep(self, key: _Key, found: _Known) -> None:
        before = self._known.get(key)
        self._known[key] = found
        if found.function is None:
            self._known.move_to_end(key)
            self._forget_missing()
        if found.failure is not None and (before is None or before.failure != found.failure):
            self._log("warning", "function cannot be served", function=key[0], reason=found.failure)
        if before is not None and before.function is not found.function and self._surroundings is not None:
            self._surroundings.changed(key[0])

    def _forget_missing(self) -> None:
        if len(self._known) > _MOST_MISSING:
            missing = [key for key, known in self._known.items() if known.function is None]
            for key in missing[: max(0, len(missing) - _MOST_MISSING)]:
                del self._known[key]

    def _function(self, key: _Key, image: ImageFacts) -> Function:
        manifest = manifest_of(image.labels, image.name)
        manifest = replace(manifest, architecture=manifest.architecture or image.architecture or None)
        settings = None if self._surroundings is None else self._surroundings.settings.functions
        code = SourceCode(
            image.name,
            image.size_bytes,
            base64.b64encode(bytes.fromhex(image.digest)).decode("ascii"),
            datetime.fromtimestamp(image.created, UTC),
        )
        function = function_of(
            manifest,
            Path(),
            region="us-east-1" if settings is None else settings.region,
            image_uri=image.pinned,
            version=key[1] or LATEST,
            source=code,
        )
        generation = self._generations[key] = self._generations.get(key, 0) + 1
        return replace(function, generation=generation)

    def _log(self, level: str, event: str, **fields: Any) -> None:
        if self._surroundings is not None:
            getattr(self._surroundings.logger, level)(event, **fields)


def _same(one: ImageFacts, other: ImageFacts) -> bool:
    """Say whether both are one function: other names of an image make no difference."""
    return (one.pinned, one.labels) == (other.pinned, other.labels)
