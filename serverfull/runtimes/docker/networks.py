"""Where the containers of a network of the engine's find this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from serverfull.runtimes.docker.engine import EngineGone

if TYPE_CHECKING:
    from serverfull.config import Settings

NONE = "none"
"""The network of containers that have none."""


class Network(NamedTuple):
    """A network of the engine.

    :param gateway: the address by which its containers reach this machine.
    :param addresses: all of its addresses, such as ``172.17.0.0/16``.
    """

    gateway: str
    addresses: str


def chosen_network(settings: Settings) -> str:
    """Say in which network containers are: code on a host behind walls is given one by its operator alone."""
    usual = NONE if settings.execution.sandbox == "strict" else "bridge"
    return settings.docker.network or usual


def network_of(client: Any, name: str) -> Network:
    """Ask the engine for a network. Called on a thread.

    :raises EngineGone: there is no such network, or containers cannot reach this machine by it.
    """
    from docker.errors import NotFound

    try:
        found = client.inspect_network(name)
    except NotFound:
        raise EngineGone(f"the Docker engine has no network {name} (docker.network)") from None
    for part in found["IPAM"].get("Config") or ():
        if "." in part.get("Gateway", ""):
            return Network(part["Gateway"], part.get("Subnet", f"{part['Gateway']}/32"))
    raise EngineGone(f"the network {name} (docker.network) has no gateway by which containers reach this machine")
