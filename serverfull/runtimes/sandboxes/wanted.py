"""What a function is to those who look for what runs it: of the seam between sandboxes and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

if TYPE_CHECKING:
    from serverfull.domain.deployed_handler import DeployedHandler, ImageConfig
    from serverfull.domain.hot_paths import FolderIdentity
    from serverfull.interfaces import FunctionIdentity

Client = Literal["own", "awslambdaric"]

CLIENT_TAG = "serverfull:client"
"""The tag of a function that chooses its runtime client, where the setting ``execution.client`` does not fit it."""

_CLIENTS: tuple[Client, ...] = ("own", "awslambdaric")


class Unrunnable(Exception):
    """Nothing here runs the function.

    :param reason: why, and what to do.
    :param code: a value of the model's ``StateReasonCode``.
    """

    def __init__(self, reason: str, code: str = "InvalidConfiguration") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a function is, without the handler object that its pool must not keep alive."""

    identity: FunctionIdentity
    handler: str
    root: Path
    runtime: str
    layers: Sequence[Path]
    region: str
    ephemeral_mb: int
    architecture: str
    image_uri: str
    image_config: ImageConfig
    snap_start: bool
    live: bool
    virtualenv: bool
    admit: Callable[[], Sequence[FolderIdentity]] | None


def wanted(identity: FunctionIdentity, handler: DeployedHandler) -> Wanted:
    """Take from a function what its program depends on."""
    return Wanted(
        identity,
        handler.name,
        handler.root,
        handler.runtime,
        handler.layers,
        handler.region,
        handler.ephemeral_mb,
        handler.architecture,
        handler.image_uri,
        handler.image_config,
        handler.snap_start,
        handler.live,
        handler.virtualenv,
        handler.admit,
    )


def chosen_client(tags: Mapping[str, str], default: Client) -> Client:
    """Say by which runtime client a function for Python or Node.js is run.

    :param tags: of the function.
    :param default: the setting ``execution.client``.
    :raises Unrunnable: its tag names none.
    """
    chosen = tags.get(CLIENT_TAG, default)
    if not _is_client(chosen):
        raise Unrunnable(f"Its tag {CLIENT_TAG} says {chosen!r}: there are {' and '.join(_CLIENTS)}")
    return chosen


def _is_client(text: str) -> TypeGuard[Client]:
    return text in _CLIENTS
