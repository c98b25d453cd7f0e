"""The name server of a host's containers, wherever their network is: the engine says where it can listen, and to whom.

A host that is to have one does not start without it: containers that look for buckets before a name would find whatever
else answers to it. Where the network has got another address since, as with an engine that was restarted with other
settings, it listens there before the next container starts.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.errors import StartupError
from serverfull.runtimes.docker.dns import NameServer
from serverfull.runtimes.docker.engine import Engine, EngineGone
from serverfull.runtimes.docker.networks import NONE, chosen_network, network_of
from serverfull.runtimes.docker.resolvers import Resolvers

if TYPE_CHECKING:
    from serverfull.config import Settings


class Names:
    """Keeps the name server that the settings ask for. Used on the host's loop.

    :param settings: with ``docker.dns_suffixes``.
    """

    def __init__(self, settings: Settings, logger: Any) -> None:
        self._docker = settings.docker
        self._network = chosen_network(settings)
        self._logger = logger
        self._moving = asyncio.Lock()
        self._server: NameServer | None = None

    async def open(self) -> None:
        """Listen.

        :raises StartupError: nobody can; the message says what to do.
        """
        if self._network == NONE:
            raise StartupError(
                "docker.dns_suffixes: there is no name server for containers, because they have no network: name one "
                "with docker.network, which is 'none', or empty while execution.sandbox is 'strict'"
            )
        engine = Engine(self._docker.engine)
        try:
            network = await engine.ask(partial(network_of, name=self._network))
        except EngineGone as gone:
            raise StartupError(f"docker.dns_suffixes: there is no name server for containers, because {gone}") from None
        finally:
            engine.close()
        suffixes = self._docker.dns_suffixes
        resolvers = Resolvers(network.gateway, self._docker.dns)
        server = NameServer(suffixes, network.gateway, network.addresses, self._logger, resolvers=resolvers)
        await server.open()
        self._server = server
        self._logger.info("containers find this machine by name", names=list(suffixes), address=f"{server.address}:53")

    async def address(self) -> str:
        """Give the address that containers which are started now find it at.

        :raises EngineGone: it would have to listen elsewhere, and cannot.
        """
        async with self._moving:
            if self._server is None or not _is_here(self._server.address):
                await self.aclose()
                try:
                    await self.open()
                except StartupError as error:
                    raise EngineGone(str(error)) from None
            assert self._server is not None
            return self._server.address

    async def aclose(self) -> None:
        """Listen no more. Closing twice is fine."""
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()


def _is_here(address: str) -> bool:
    """Say whether this machine has an address still."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
        try:
            trying.bind((address, 0))
        except OSError:
            return False
    return True
