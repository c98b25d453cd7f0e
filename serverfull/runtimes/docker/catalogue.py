"""Tells fetchers which images the Docker engine has, and has it pull others: functions that nobody has deployed.

Asked on the loop; the engine answers on threads, as it does to the launcher, whose engine is another one: a host that
serves images and runs none is a rare thing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.domain.images import ImageFacts
from serverfull.errors import ExtraMissing, ImageUnavailable, InternalFailure
from serverfull.interfaces import Catalogue
from serverfull.runtimes.docker.engine import Engine, EngineGone
from serverfull.runtimes.docker.images import ARCHITECTURES, Images, ImageUnusable, inspect, pinned

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from serverfull.config import DockerSettings


class EngineCatalogue(Catalogue):
    """Asks the engine of the settings.

    :param settings: which engine that is, when it pulls, and from where.
    :raises ExtraMissing: the package that asks is not installed.
    """

    def __init__(self, settings: DockerSettings, logger: Any) -> None:
        if importlib.util.find_spec("docker") is None:
            raise ExtraMissing("docker://", "docker", "docker")
        self._engine = Engine(settings.engine)
        self._images = Images(self._engine, {}, settings.pull, settings.registries, logger, {})

    async def find(self, name: str, *, here: bool) -> ImageFacts | None:
        """Give the image that a name means now; it is pulled where ``docker.pull`` says so."""
        looking = self._engine.ask(partial(inspect, name=name)) if here else self._images.had(name)
        looked = await self._asked(looking)
        return None if looked is None else _facts(name, looked, looked.get("Config") or {})

    async def labelled(self, label: str = "") -> Sequence[ImageFacts]:
        """Give the images that have a name, and a label."""
        filters: dict[str, Any] = {"dangling": False} | ({"label": label} if label else {})
        found = await self._asked(self._engine.ask(lambda client: client.images(filters=filters)))
        return [_facts(names[0], each, each) for each in found if (names := _names(each))]

    async def _asked(self, question: Awaitable[Any]) -> Any:
        from docker.errors import APIError

        try:
            return await question
        except ImageUnusable as refusal:
            raise ImageUnavailable(refusal.reason, missing=refusal.code == "InvalidImage") from None
        except EngineGone as gone:
            raise InternalFailure(f"{gone}.") from None
        except APIError as error:
            raise InternalFailure(f"The Docker engine refuses: {error.explanation or error}") from None

    async def aclose(self) -> None:
        """Ask nothing any more."""
        self._engine.close()


def _names(told: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(name for name in told.get("RepoTags") or () if not name.startswith("<none>")))


def _facts(name: str, told: Mapping[str, Any], labelled: Mapping[str, Any]) -> ImageFacts:
    """Read what the engine tells of one image, or of one among all, which is worded differently.

    :param labelled: what has the labels.
    """
    architecture, created = told.get("Architecture", ""), told.get("Created") or 0
    return ImageFacts(
        name=name,
        pinned=pinned(name, told),
        names=_names(told),
        labels=labelled.get("Labels") or {},
        architecture=ARCHITECTURES.get(architecture, architecture),
        size_bytes=told.get("Size") or 0,
        created=_moment(created) if isinstance(created, str) else float(created),
    )


def _moment(text: str) -> float:
    """Read a time such as ``2026-11-22T05:30:00.123456789Z``."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
