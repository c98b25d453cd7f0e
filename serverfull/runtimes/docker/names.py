"""Opens the name server of a host's containers: the engine says where it can listen, and who may ask it.

A host that is to have one does not start without it: containers that look for buckets before a name would find whatever
else answers to it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from serverfull.errors import StartupError
from serverfull.runtimes.docker.dns import NameServer
from serverfull.runtimes.docker.engine import Engine, EngineGone
from serverfull.runtimes.docker.networks import NONE, chosen_network, network_of
from serverfull.runtimes.docker.resolvers import Resolvers

if TYPE_CHECKING:
    from serverfull.config import Settings


async def open_name_server(settings: Settings, logger: Any) -> NameServer:
    """Open the name server that the settings ask for.

    :raises StartupError: it cannot be opened; the message says what to do.
    """
    docker, name = settings.docker, chosen_network(settings)
    if name == NONE:
        raise StartupError(
            "docker.dns_suffixes: there is no name server for containers, because they have no network: name one with "
            "docker.network, which is 'none', or empty while execution.sandbox is 'strict'"
        )
    engine = Engine(docker.engine)
    try:
        network = await engine.ask(partial(network_of, name=name))
    except EngineGone as gone:
        raise StartupError(f"docker.dns_suffixes: there is no name server for containers, because {gone}") from None
    finally:
        engine.close()
    resolvers = Resolvers(network.gateway, docker.dns)
    server = NameServer(docker.dns_suffixes, network.gateway, network.addresses, logger, resolvers=resolvers)
    await server.open()
    logger.info("containers find this machine by name", names=list(docker.dns_suffixes), address=f"{server.address}:53")
    return server
