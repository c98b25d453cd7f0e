"""Launches the instances of functions as Docker containers of this machine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from serverfull.domain.readiness import Unfit
from serverfull.errors import FunctionNotReady, InternalFailure
from serverfull.runtimes.aws_access import CONTAINER_FOLDER
from serverfull.runtimes.docker.containers import Container, Recipe
from serverfull.runtimes.docker.engine import Engine, EngineGone
from serverfull.runtimes.docker.images import Images, ImageUnusable, parsed
from serverfull.runtimes.docker.networks import NONE, chosen_network
from serverfull.runtimes.docker.options import CLIENT, TASK, Held, Shown, Wish
from serverfull.runtimes.docker.programs import find_program, handler_of
from serverfull.runtimes.docker.site import Site
from serverfull.runtimes.docker.starting import ImageGone, PackageReplaced
from serverfull.runtimes.sandboxes.layers import linked, merged
from serverfull.runtimes.sandboxes.leftovers import remove_tree
from serverfull.runtimes.sandboxes.profiles import Profiles
from serverfull.runtimes.sandboxes.variables import OPT, function_variables
from serverfull.runtimes.sandboxes.wanted import Unrunnable, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from serverfull.config import Settings
    from serverfull.domain.deployed_handler import DeployedHandler
    from serverfull.interfaces import FunctionIdentity
    from serverfull.runtimes.aws_access import AwsAccess
    from serverfull.runtimes.docker.images import Image
    from serverfull.runtimes.docker.names import Names
    from serverfull.runtimes.docker.programs import Program
    from serverfull.runtimes.runtime_api.extensions import Extensions
    from serverfull.runtimes.sandboxes.wanted import Client, Wanted


class ContainerLauncher:
    """Starts the containers of one function.

    :param function: what it is.
    """

    def __init__(self, launchers: ContainerLaunchers, function: Wanted) -> None:
        self._launchers = launchers
        self._function = function
        self._asking = asyncio.Lock()
        self._recipe: Recipe | None = None
        self._own: list[Path] = []
        finalize(self, _remove, self._own).atexit = False  # sandboxes hold it until they end

    async def prepare(self) -> None:
        """Find the image, and put the layers together.

        :raises FunctionNotReady: nothing here runs the function; the message says what to do.
        :raises InternalFailure: the engine is away.
        """
        async with self._asking:
            if self._recipe is None:
                self._recipe = await self._launchers.recipe(self._function, self._own)

    async def launch(
        self, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Container:
        """Start a container.

        :raises Unstartable: its program cannot be executed.
        :raises FunctionNotReady: its image is gone, and cannot be had again; or a folder that it runs from in place is.
        :raises InternalFailure: it cannot be started for another reason.
        """
        await self.prepare()
        try:
            return await self._start(variables, write, extensions)
        except ImageGone:
            self._launchers.forget(self._function)
            self._recipe = None
        await self.prepare()
        try:
            return await self._start(variables, write, extensions)
        except ImageGone as gone:
            raise InternalFailure from gone

    async def _start(
        self, variables: Mapping[str, str], write: Callable[[str], object], extensions: Extensions
    ) -> Container:
        assert self._recipe is not None
        recipe, name = self._recipe, self._function.identity.name
        if self._function.admit is not None:  # folders that are not the host's own
            identities = await asyncio.to_thread(self._function.admit)
            recipe = replace(recipe, package=identities[0] if self._function.live else None)
        await self._launchers.profiles.refresh()
        held = await self._launchers.hold()
        try:
            return await Container.start(recipe, held, self._launchers.site, variables, write, extensions)
        except PackageReplaced:
            why = f"The folder {str(self._function.root)!r} was replaced by another while a container was started."
            raise FunctionNotReady(name, "Failed", why) from None


class ContainerLaunchers:
    """Makes the launchers of functions that run in containers. Close it when no container is left.

    :param site: what the containers share.
    :param held: what the operator says of all of them.
    :param client: of functions that do not choose: ``own``, or ``awslambdaric`` for what the image starts by itself.
    :param aws: what functions reach AWS with.
    :param names: the name server that containers are given; None: what ``held`` says.
    """

    def __init__(
        self,
        site: Site,
        images: Images,
        held: Held,
        client: Client,
        aws: AwsAccess,
        logger: Any,
        names: Names | None = None,
    ) -> None:
        self.site = site
        self.profiles = Profiles(aws.folder, lambda: site.profiles)
        self._aws = aws
        self.held = held
        self._images = images
        self._client = client
        self._logger = logger
        self._names = names

    async def hold(self) -> Held:
        """Give what holds for a container that is started now.

        :raises InternalFailure: its name server cannot listen where its network is.
        """
        if self._names is None:
            return self.held
        try:
            return replace(self.held, dns=(await self._names.address(),))
        except EngineGone as gone:
            self.site.tell("container not started", gone)
            raise InternalFailure from gone

    async def open(self) -> None:
        """Remove what a killed host has left. Where the engine is away, the log says so, and it is done later."""
        try:
            await self.site.open()
        except EngineGone as gone:
            self._logger.warning("no containers", reason=str(gone))
        else:
            self._logger.info("containers", engine=self.site.engine.address, network=self.held.network)

    def of(self, identity: FunctionIdentity, handler: DeployedHandler) -> ContainerLauncher:
        """Make the launcher of a function."""
        return ContainerLauncher(self, wanted(identity, handler))

    async def unfit(self, identity: FunctionIdentity, handler: DeployedHandler) -> Unfit | None:
        """Say why no container can be made for a function; its image is pulled for that."""
        function = wanted(identity, handler)
        try:
            image, _ = await self._find(function, anew=True)
        except (ImageUnusable, Unrunnable) as refusal:
            return Unfit(refusal.reason, refusal.code)
        except EngineGone as gone:
            return Unfit(f"Its containers cannot be made: {gone}", "InternalError")
        if function.image_uri:
            handler.image_found = image.pinned
        return None

    def forget(self, function: Wanted) -> None:
        """Look for the image of a function again when it is wanted next."""
        self._images.forget(self._name(function))

    async def recipe(self, function: Wanted, own: list[Path]) -> Recipe:
        """Say what the containers of a function are made of.

        :param own: gets the folders that are to be removed with it, layers that may change.
        :raises FunctionNotReady: nothing here runs it.
        :raises InternalFailure: the engine is away.
        """
        name = function.identity.name
        try:
            image, program = await self._find(function)
        except (ImageUnusable, Unrunnable) as refusal:
            raise FunctionNotReady(name, "Failed", refusal.reason) from None
        except EngineGone as gone:
            self.site.tell("container not started", gone)
            raise InternalFailure from gone
        shown = [] if function.image_uri else await asyncio.to_thread(self._package, function, own)
        if program.own_client:
            shown.append(Shown(str(self.site.client), CLIENT))
        shown += self._profiles_shown()
        wish = _wish(function, image, program, self._aws.of_container(), shown)
        return Recipe(
            wish=wish,
            name=name,
            program=program.program,
            first=(*program.entry_point, *program.command)[0],
            path={**image.environment, **wish.variables}.get("PATH", ""),
            own_client=program.own_client,
            led=program.led,
            extensions=program.extensions,
        )

    def _package(self, function: Wanted, own: list[Path]) -> list[Shown]:
        """Give the folders of a function's package and of its layers."""
        shown = [Shown(str(function.root), TASK)]
        if function.layers:
            lay = merged if function.admit is None else linked
            layers = lay(function.layers, self.site.layers)
            own += [] if lay is merged else [layers]
            for mount in self._profiles_shown():  # nothing can be mounted where there is nothing
                (layers / Path(mount.target).relative_to(OPT)).mkdir(exist_ok=True)
            shown.append(Shown(str(layers), str(OPT)))
        return shown

    def _profiles_shown(self) -> list[Shown]:
        folder = self.profiles.folder
        return [] if folder is None else [Shown(str(folder), CONTAINER_FOLDER)]

    def _name(self, function: Wanted) -> str:
        return function.image_uri or self._images.name_for(function.runtime)

    async def _find(self, function: Wanted, *, anew: bool = False) -> tuple[Image, Program]:
        """Find what runs a function.

        :raises ImageUnusable: its image is not to be had.
        :raises Unrunnable: what is to be executed is not there.
        :raises EngineGone: nobody can be asked.
        """
        name = self._name(function)
        await self.site.open()
        image = await self._images.find(name, anew=anew)
        if function.image_uri and image.architecture not in ("", function.architecture):
            raise ImageUnusable(
                f"The image {name} is for {image.architecture}, and the function for {function.architecture} "
                "(Architectures)",
                "InvalidImage",
            )
        program = await asyncio.to_thread(find_program, function, image, self._client)
        if (program.extensions or not program.own_client) and self.held.network == NONE:
            raise Unrunnable(
                f"What runs it in {name} finds the host by network alone, and containers have none: docker.network is "
                "'none', or empty while execution.sandbox is 'strict'",
                "InvalidConfiguration",
            )
        return image, program

    async def aclose(self) -> None:
        """Wait until the containers are removed. Closing twice is fine."""
        await self.site.aclose()


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        remove_tree(folder)


def _wish(function: Wanted, image: Image, program: Program, aws: Mapping[str, str], shown: Sequence[Shown]) -> Wish:
    identity = function.identity
    variables = function_variables(
        identity,
        handler=handler_of(function, program),
        runtime=function.runtime,
        root=Path(TASK),
        opt=OPT,
        region=function.region,
        log_level=identity.application_log_level,
        runtime_dir="/var/runtime",
        image=image.environment,
        aws=aws,
    )
    return Wish(
        image=image.id,
        entry_point=program.entry_point,
        command=program.command,
        volumes=image.volumes,
        folder=program.folder,
        variables=variables,
        shown=shown,
        memory_mb=identity.memory_size,
        ephemeral_mb=function.ephemeral_mb,
        named=bool(program.extensions) or not program.own_client,
    )


def make_launchers(settings: Settings, aws: AwsAccess, logger: Any, names: Names | None = None) -> ContainerLaunchers:
    """Wire what makes containers, as the settings ``docker`` and ``execution`` say. Must be called on the host's loop.

    :param aws: what functions reach AWS with.
    :param names: the name server of ``docker.dns_suffixes``, opened.
    """
    docker = settings.docker
    engine = Engine(docker.engine)
    site = Site(engine, docker.keep, logger)
    images = Images(engine, parsed(docker.images), docker.pull, docker.registries, logger, site.labels)
    held = Held(
        user=docker.user,
        network=chosen_network(settings),
        extra_hosts=docker.extra_hosts,
        dns=docker.dns,
        volumes=[Shown.parse(volume) for volume in docker.volumes],
    )
    return ContainerLaunchers(site, images, held, settings.execution.client, aws, logger, names)
