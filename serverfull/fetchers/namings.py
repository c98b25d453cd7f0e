"""Which container image a function is: by a mapping, by a template of names, or by what images say of themselves.

`serverfull.fetchers.docker` asks, on the event loop. Nothing is kept here but for a moment.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from serverfull.domain.images import is_image_name, repository_of, tag_of
from serverfull.errors import ManifestInvalid, TargetNotFound

if TYPE_CHECKING:
    from serverfull.domain.images import ImageFacts
    from serverfull.interfaces import Catalogue

NAME_LABEL = "serverfull.function"
"""The label by which an image says which function it is."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_NEWEST = (None, "$LATEST")


class Naming(ABC):
    """Finds the image of a function.

    :ivar place: what listings show for it.
    """

    place: str = ""

    @abstractmethod
    async def find(self, catalogue: Catalogue, name: str, qualifier: str | None, *, here: bool) -> ImageFacts | None:
        """Give the image of a function, None where it is none.

        :param here: look on this machine alone.
        :raises ImageUnavailable: it could not be fetched.
        :raises ManifestInvalid: there are several that could be meant.
        :raises InternalFailure: nobody can be asked.
        """

    @abstractmethod
    async def names(self, catalogue: Catalogue) -> Sequence[str]:
        """Give the names of all functions, as far as they are known on this machine."""

    def lacks(self, name: str) -> bool:
        """Say whether there is certainly no function of that name."""
        return False


class Mapped(Naming):
    """Names to images, as somebody has written them down.

    :raises TargetNotFound: a name or an image is none.
    """

    def __init__(self, images: Mapping[str, str]) -> None:
        for name, image in images.items():
            if _NAME.fullmatch(name) is None or not is_image_name(image):
                raise TargetNotFound(
                    f"{name}={image} does not name a function and its image, such as hello=shop/hello:1"
                )
        self._images = dict(images)

    async def find(self, catalogue: Catalogue, name: str, qualifier: str | None, *, here: bool) -> ImageFacts | None:
        """Give the image that is written down; a function has no versions."""
        if name not in self._images or qualifier not in _NEWEST:
            return None
        return await catalogue.find(self._images[name], here=here)

    async def names(self, catalogue: Catalogue) -> Sequence[str]:
        """Give all that are written down."""
        return list(self._images)

    def lacks(self, name: str) -> bool:
        """Say whether it is not written down."""
        return name not in self._images


class Templated(Naming):
    """An image name with ``{name}`` in it, and with ``{qualifier}`` or without.

    :raises TargetNotFound: that makes no name of an image.
    """

    def __init__(self, template: str) -> None:
        filled = template.replace("{name}", "a").replace("{qualifier}", "a")
        if "{name}" not in template or not is_image_name(filled):
            raise TargetNotFound(
                f"{template!r} makes no name of an image: write registry/{{name}}:{{qualifier}}, {{name}} or so"
            )
        self.place = template
        self._template = template
        name, qualifier = r"(?P<name>[a-zA-Z0-9_-]{1,64})", r"(?P<qualifier>[a-zA-Z0-9_-]+)"
        pattern = re.escape(template).replace(r"\{name\}", name, 1).replace(r"\{qualifier\}", qualifier, 1)
        self._pattern = re.compile(pattern if template.rpartition("/")[2].count(":") else f"{pattern}:latest")

    async def find(self, catalogue: Catalogue, name: str, qualifier: str | None, *, here: bool) -> ImageFacts | None:
        """Give the image that the template makes; ``$LATEST`` is the qualifier ``latest``."""
        if qualifier not in _NEWEST and "{qualifier}" not in self._template:
            return None
        tag = "latest" if qualifier in _NEWEST else str(qualifier)
        image = self._template.replace("{name}", name).replace("{qualifier}", tag)
        return await catalogue.find(image, here=here) if is_image_name(image) else None

    async def names(self, catalogue: Catalogue) -> Sequence[str]:
        """Give the functions whose images this machine has; what registries have besides, nobody lists."""
        told = [self._pattern.fullmatch(name) for image in await catalogue.labelled() for name in image.names]
        return sorted({match["name"] for match in told if match is not None})


class Labelled(Naming):
    """Images of this machine that say which function they are: ``LABEL serverfull.function=NAME``.

    :param age: seconds for which what was seen is taken as it was.
    """

    def __init__(self, age: float) -> None:
        self._age = age
        self._seen: Mapping[str, Sequence[ImageFacts]] = {}
        self._due = 0.0

    async def find(self, catalogue: Catalogue, name: str, qualifier: str | None, *, here: bool) -> ImageFacts | None:
        """Give the image whose tag is the qualifier; without one, that with the tag ``latest``, or the newest."""
        images = (await self._look(catalogue)).get(name, ())
        if len({repository_of(image.name) for image in images}) > 1:
            both = " and ".join(sorted(image.name for image in images))
            raise ManifestInvalid(both, f"they say of themselves that they are the function {name}: remove one of them")
        tag = "latest" if qualifier in _NEWEST else qualifier
        tagged = [image for image in images if any(tag_of(each) == tag for each in image.names)]
        if tagged or qualifier not in _NEWEST:
            return tagged[0] if tagged else None
        return max(images, key=lambda image: image.created, default=None)

    async def names(self, catalogue: Catalogue) -> Sequence[str]:
        """Give the functions that images say they are."""
        return list(await self._look(catalogue))

    def lacks(self, name: str) -> bool:
        """Say whether no image said a moment ago that it is this function."""
        return name not in self._seen and time.monotonic() < self._due

    async def _look(self, catalogue: Catalogue) -> Mapping[str, Sequence[ImageFacts]]:
        if time.monotonic() >= self._due:
            seen: dict[str, list[ImageFacts]] = {}
            for image in await catalogue.labelled(NAME_LABEL):
                if _NAME.fullmatch(image.labels.get(NAME_LABEL, "")):
                    seen.setdefault(image.labels[NAME_LABEL], []).append(image)
            self._seen, self._due = seen, time.monotonic() + self._age
        return self._seen


def naming_of(text: str, age: float) -> Naming:
    """Read what comes after ``docker://``.

    :param text: nothing, a template, or ``name=image`` with commas between several.
    :raises TargetNotFound: it is none of these.
    """
    if not text:
        return Labelled(age)
    if "=" not in text:
        return Templated(text)
    pairs = [pair.partition("=") for pair in text.split(",")]
    return Mapped({name.strip(): image.strip() for name, _, image in pairs})
