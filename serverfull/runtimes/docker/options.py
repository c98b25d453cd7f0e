"""How a container is held: what is asked of the engine for it. Pure functions; nothing of it comes from an API call.

Of a function come its image, command, variables, sizes of memory and ``/tmp``; of the operator user, network, hosts,
name servers and mounts; everything else is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serverfull.runtimes.docker import syscalls

MEGABYTE = 1024 * 1024

MOST_PROCESSES = 1024
"""Processes and threads of a container, as on AWS."""

MOST_FILES = 1024
"""Open files of a process, as on AWS."""

FIRST_TO_GO = 500
"""Added to what the kernel thinks of a container where the whole machine runs out of memory: functions before hosts."""

TASK = "/var/task"
"""Where a container sees the package."""

OPT = "/opt"
"""Where a container sees the layers."""

HOST = "/run/serverfull/host"
"""Where a container sees the folder with the ends of its own lines to the host: ``api`` and ``log``."""

CLIENT = "/run/serverfull/client"
"""Where a container sees our own runtime client."""

INSTANCE = "serverfull.instance"
"""The label that says which host a container belongs to."""

OWNER = "serverfull.user"
"""The label that says which user of this machine that host has: nobody removes what is another user's."""

FUNCTION = "serverfull.function"
"""The label that says which function it is of."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A folder of this machine that a container sees.

    :param source: here.
    :param target: there.
    """

    source: str
    target: str
    read_only: bool = True

    @classmethod
    def parse(cls, text: str) -> Shown:
        """Read ``source:target`` or ``source:target:ro`` as the operator writes it."""
        source, target, *mode = text.split(":")
        return cls(source, target, read_only=mode == ["ro"])

    def mount(self) -> dict[str, Any]:
        """Give it as the engine takes it."""
        return {
            "Type": "bind",
            "Source": self.source,
            "Target": self.target,
            "ReadOnly": self.read_only,
            "BindOptions": {"Propagation": "rprivate"},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the operator says of all containers; the settings of ``docker`` have the same names.

    :param user: and group, as numbers.
    """

    user: str
    network: str
    extra_hosts: Sequence[str] = ()
    dns: Sequence[str] = ()
    volumes: Sequence[Shown] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a container is made of.

    :param image: its id.
    :param entry_point: what is executed, with ``command`` behind it; None: the image's own.
    :param command: None: the image's own.
    :param folder: where it starts; None: the image says.
    :param variables: all of its environment beside the image's.
    :param shown: the folders of this machine that it sees.
    :param volumes: folders of the image that would be volumes: nothing can be written there, and the engine's disk not
        be filled.
    :param memory_mb: of the function.
    :param ephemeral_mb: of its ``/tmp``, which counts as memory of the container too.
    :param labels: beside the instance's.
    :param named: its own address has the names in it that AWS gives an environment.
    """

    image: str
    entry_point: Sequence[str] | None
    command: Sequence[str] | None
    folder: str | None
    variables: Mapping[str, str]
    shown: Sequence[Shown]
    volumes: Sequence[str]
    memory_mb: int
    ephemeral_mb: int
    labels: Mapping[str, str] = field(default_factory=dict)
    named: bool = False


def configuration(wish: Wish, held: Held) -> dict[str, Any]:
    """Give the body of the engine's request for a container.

    Engine: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate
    """
    made: dict[str, Any] = {
        "Image": wish.image,
        "User": held.user,
        "Env": [f"{name}={value}" for name, value in wish.variables.items()],
        "Labels": dict(wish.labels),
        "OpenStdin": False,
        "Tty": False,
        "Healthcheck": {"Test": ["NONE"]},  # of the image: the engine would start processes in it, frozen or not
        "HostConfig": _limits(wish, held),
    }
    if wish.named:
        made |= {"Hostname": "sandbox", "Domainname": "localdomain"}
    if wish.entry_point is not None:
        made["Entrypoint"] = list(wish.entry_point)
    if wish.command is not None:
        made["Cmd"] = list(wish.command)
    if wish.folder is not None:
        made["WorkingDir"] = wish.folder
    return made


def _limits(wish: Wish, held: Held) -> dict[str, Any]:
    mounts = (*wish.shown, *held.volumes)
    memory = (wish.memory_mb + wish.ephemeral_mb) * MEGABYTE
    return {
        "Init": True,  # or the function were process 1, which no signal of its own kills
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": [*syscalls.HERE],
        "ReadonlyRootfs": True,
        "Tmpfs": _tmpfs(wish, mounts),
        "Memory": memory,
        "MemorySwap": memory,  # of both together: no swap
        "PidsLimit": MOST_PROCESSES,
        "Ulimits": [
            {"Name": "nofile", "Soft": MOST_FILES, "Hard": MOST_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "OomScoreAdj": FIRST_TO_GO,
        "IpcMode": "private",
        "NetworkMode": held.network,
        "ExtraHosts": list(held.extra_hosts),
        "Dns": list(held.dns),
        "LogConfig": {"Type": "none"},
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Mounts": [shown.mount() for shown in mounts],
    }


def _tmpfs(wish: Wish, mounts: Sequence[Shown]) -> dict[str, str]:
    elsewhere = {shown.target for shown in mounts}
    empty = {volume: "ro,size=4k" for volume in wish.volumes if volume not in elsewhere}
    return empty | {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={wish.ephemeral_mb}m"}  # noqa: S108 - the container's
