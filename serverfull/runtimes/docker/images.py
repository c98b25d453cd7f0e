"""Finds the images that containers are made of: which one runs a runtime, whether the engine has it, and pulls it.

Credentials of private registries are those of the Docker configuration (``~/.docker/config.json``, its helpers
included), read again for each pull.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from serverfull.runtimes.docker.contents import Contents, look_into

if TYPE_CHECKING:
    from serverfull.runtimes.docker.engine import Engine

Pull = Literal["missing", "always", "never"]

_OFFICIAL = "public.ecr.aws/lambda/"

_PULL_PATIENCE = 120.0
"""Seconds that a registry may be silent while an image is pulled."""

_MOST_SAID = 300
"""Characters of what an engine says that a function's owner is told."""

ARCHITECTURES = {"amd64": "x86_64"}
"""Engines' names of what AWS calls otherwise."""

_DENIED = ("denied", "unauthorized", "authentication required", "no basic auth", "forbidden", "403")
_UNKNOWN = ("manifest unknown", "not found", "no such image", "does not exist", "no matching manifest", "invalid")


class ImageUnusable(Exception):
    """No container can be made of an image.

    :param reason: why, and what to do.
    :param code: a value of the model's ``StateReasonCode``.
    """

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that the engine has.

    :param id: what containers are made of; the name may mean another one tomorrow.
    :param pinned: ``repository@sha256:digest``, which means the same image at any time; the digest is its id where it
        comes from no registry.
    :param environment: its variables.
    :param volumes: the folders of it that are to be volumes, and are empty.
    :param architecture: of the machines that it is for, by AWS's name where AWS has one.
    """

    id: str
    name: str
    pinned: str
    architecture: str
    entry_point: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    volumes: tuple[str, ...]
    contents: Contents


def official_image(runtime: str) -> str | None:
    """Give AWS's own image of a runtime; None: there is none.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/images-create.html#runtimes-images-lp
    """
    found = re.fullmatch(r"(python|nodejs|java|dotnet|ruby)([\d.]+?)(?:\.x)?(?:\.(al2|al2023))?", runtime)
    if found is not None:
        kind, version, system = found.groups()
        return f"{_OFFICIAL}{kind}:{version}{f'.{system}' if system else ''}"
    if runtime.startswith("provided."):
        return f"{_OFFICIAL}provided:{runtime.removeprefix('provided.')}"
    return None


class Images:
    """Finds images, and remembers them until one is asked for anew.

    :param mapped: the operator's image for each runtime; those that are not here have AWS's own.
    :param pull: when the engine is to pull one.
    :param registries: that it may be sent to; empty: all.
    :param logger: hears of pulls.
    :param labels: of containers that are made to look into an image.
    """

    def __init__(
        self,
        engine: Engine,
        mapped: Mapping[str, str],
        pull: Pull,
        registries: Collection[str],
        logger: Any,
        labels: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._mapped = mapped
        self._pull = pull
        self._registries = registries
        self._logger = logger
        self._labels = dict(labels)
        self._found: dict[str, Image] = {}
        self._finding: dict[str, asyncio.Task[Image]] = {}

    def name_for(self, runtime: str) -> str:
        """Say which image runs a runtime.

        :raises ImageUnusable: none is known.
        """
        name = self._mapped.get(runtime) or official_image(runtime)
        if name is None:
            raise ImageUnusable(f"No image is mapped for {runtime} (docker.images)", "InvalidRuntime")
        return name

    async def find(self, name: str, *, anew: bool = False) -> Image:
        """Find an image; the engine pulls it where it has none. All who want it meanwhile wait for the same.

        :param anew: look again at one that was found, and pull it where each deployment is to do that.
        :raises ImageUnusable: it cannot be had, or not be used.
        :raises EngineGone: nobody can be asked for it.
        """
        if not anew and name in self._found:
            return self._found[name]
        task = self._finding.get(name)
        if task is None:
            task = self._finding[name] = asyncio.get_running_loop().create_task(self._find(name))
            task.add_done_callback(partial(self._ended, name))
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """Look for an image again when it is wanted next: the engine has it no more."""
        self._found.pop(name, None)

    def _ended(self, name: str, task: asyncio.Task[Image]) -> None:
        del self._finding[name]
        if not task.cancelled() and task.exception() is None:  # asked for here, as the last who waited may be gone
            self._found[name] = task.result()

    async def had(self, name: str) -> Mapping[str, Any]:
        """Give what the engine tells of an image, which it pulls first where that is to be done.

        :raises ImageUnusable: it cannot be had.
        :raises EngineGone: nobody can be asked for it.
        """
        looked = await self._engine.ask(partial(inspect, name=name))
        if looked is None and self._pull != "never":
            looked = await self._pulled(name)
        elif self._pull == "always" and "@" not in name:  # one with a digest is the same at any time
            looked = await self._pulled_again(name)
        if looked is None:
            said = "and docker.pull is 'never': pull it" if self._pull == "never" else "even now that it was pulled"
            raise ImageUnusable(f"The Docker engine has no image {name}, {said}", "InvalidImage")
        return looked

    async def _find(self, name: str) -> Image:
        from docker.errors import APIError

        try:
            looked = await self.had(name)
            return await self._engine.ask(partial(_examine, name=name, looked=looked, labels=self._labels))
        except APIError as error:
            said = f"The Docker engine could not look into the image {name}: {error.explanation or error}"
            raise ImageUnusable(said, "InternalError") from None

    async def _pulled(self, name: str) -> dict[str, Any] | None:
        """Have the engine pull an image.

        :raises ImageUnusable: it cannot be had, or not from there.
        """
        registry = _registry_of(name)
        if self._registries and registry not in self._registries:
            said = f"The image {name} would have to come from {registry}, which is not among docker.registries"
            raise ImageUnusable(said, "ImageAccessDenied")
        self._logger.info("image is pulled", image=name)
        await self._engine.ask(lambda _client: _pull(self._engine, name))
        return await self._engine.ask(partial(inspect, name=name))

    async def _pulled_again(self, name: str) -> dict[str, Any] | None:
        """Pull one that the engine has: what is asked to be of the registry is not taken from elsewhere.

        :raises ImageUnusable: the registry has none of that name, or cannot be asked.
        """
        try:
            return await self._pulled(name)
        except ImageUnusable as refusal:
            said = "The engine has an image of that name, which docker.pull = 'missing' takes, and 'always' does not"
            raise ImageUnusable(f"{refusal.reason}. {said}", refusal.code) from None


def inspect(client: Any, name: str) -> dict[str, Any] | None:
    """Look at an image; None: the engine has none of that name, and none whose id is the digest in it."""
    from docker.errors import ImageNotFound

    digest = name.partition("@")[2]
    for known_as in (name, digest) if digest else (name,):
        with suppress(ImageNotFound):
            found: dict[str, Any] = client.inspect_image(known_as)
            return found
    return None


def _pull(engine: Engine, name: str) -> None:
    """Pull an image with a client of its own, which has read the Docker configuration just now.

    :raises ImageUnusable: it cannot be had.
    """
    import docker
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(name)
    client = engine.connect(timeout=_PULL_PATIENCE)
    try:
        steps = client.pull(repository, tag=tag or "latest", stream=True, decode=True)
        errors = [step["error"] for step in steps if "error" in step]  # read to the end: the package forgets to close
    except docker.errors.APIError as error:
        raise _refusal(name, error.explanation or str(error)) from None
    finally:
        client.close()
    if errors:
        raise _refusal(name, errors[0])


def _registry_of(name: str) -> str:
    """Say which registry an image is of."""
    from docker.auth import resolve_repository_name
    from docker.errors import InvalidRepository

    try:
        return str(resolve_repository_name(name)[0])
    except InvalidRepository as error:
        raise ImageUnusable(f"There can be no image {name}: {error}", "InvalidImage") from None


def _refusal(name: str, said: str) -> ImageUnusable:
    """Word what an engine or a registry has said, and tell who may not from what is not there.

    What some other program has said that was taken for a registry is in there too, and need not be told whole.
    """
    said = f"{said[:_MOST_SAID]}…" if len(said) > _MOST_SAID else said
    words = said.lower()
    if any(word in words for word in _DENIED):
        hint = "log in with docker login, as the user that the host runs as, or pull it beforehand"
        return ImageUnusable(f"The image {name} may not be pulled: {said}. {hint}", "ImageAccessDenied")
    if any(word in words for word in _UNKNOWN):
        return ImageUnusable(f"There is no image {name} for this machine: {said}", "InvalidImage")
    return ImageUnusable(f"The image {name} could not be pulled: {said}", "ImageAccessDenied")


def _examine(client: Any, name: str, looked: Mapping[str, Any], labels: Mapping[str, str]) -> Image:
    """Look what is in an image.

    :raises ImageUnusable: it is for another kind of machine, or has files where it is to have a volume.
    """
    architecture, system = looked.get("Architecture", ""), looked.get("Os", "linux")
    engine = client.version(api_version=True)
    if system != "linux" or architecture not in {"", engine["Arch"]}:
        said = f"The image {name} is for {system}/{architecture}, and the Docker engine runs on linux/{engine['Arch']}"
        raise ImageUnusable(said, "InvalidImage")
    config = looked.get("Config") or {}
    volumes = tuple({posixpath.normpath(path) for path in config.get("Volumes") or ()} - {"/tmp"})  # noqa: S108
    contents = look_into(client, looked["Id"], labels, volumes)
    if contents.filled:
        raise ImageUnusable(
            f"The image {name} has files in {contents.filled[0]}, which it says is a volume (VOLUME): functions have "
            "none, and nothing would be there",
            "InvalidImage",
        )
    variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    return Image(
        id=looked["Id"],
        name=name,
        pinned=pinned(name, looked),
        architecture=ARCHITECTURES.get(architecture, architecture),
        entry_point=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        environment=variables,
        volumes=volumes,
        contents=contents,
    )


def pinned(name: str, looked: Mapping[str, Any]) -> str:
    """Name an image by its digest, and by its id where no registry has told one, as of an image that was built here."""
    from docker.utils import parse_repository_tag

    repository = parse_repository_tag(parse_repository_tag(name)[0])[0]  # digest and tag may both be there
    usual = {repository, repository.removeprefix("docker.io/").removeprefix("library/")}
    digests = (each for each in looked.get("RepoDigests") or () if each.partition("@")[0] in usual)
    return next(digests, f"{repository}@{looked['Id']}")


def parsed(mapping: Sequence[str]) -> dict[str, str]:
    """Read the setting ``docker.images``: ``runtime=image`` each; a later one counts."""
    return dict(entry.partition("=")[::2] for entry in mapping)
