"""Layers: packages that functions share.

A layer has versions, which never change. A version that is deleted while functions use it stays as a record that is
hidden, so that those functions keep their code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serverfull.domain.names import partition_of
from serverfull.domain.records import Kind, Partition

MAX_LAYERS = 5
"""Layers of one function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What belongs to a layer as a whole.

    :param last_version: the number of the version that was published last; numbers are never used again.
    """

    name: str
    last_version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerVersion:
    """A version of a layer.

    :param code_sha256: of the package, in hexadecimal: its name in the code store.
    :param code_size: bytes of the package.
    :param unzipped_size: bytes of its files; 0 where that was not counted yet.
    :param hot_path: the folder of this machine that it is, in place of a package; empty: it is a package.
    :param compatible_runtimes: as the publisher said; nothing checks it.
    :param created: as AWS writes it, ``2026-11-21T04:30:00.000+0000``.
    :param signed: whether the package has a signature of AWS Signer in it, of whatever worth.
    :param statements: of its policy, by their Sids.
    :param policy_revision: a UUID that changes with the policy; empty while there never was one.
    :param deleted: whether it is gone for all but the functions that use it.
    """

    layer: str
    number: int
    code_sha256: str
    code_size: int
    created: str
    unzipped_size: int = 0
    hot_path: str = ""
    description: str = ""
    license_info: str | None = None
    compatible_runtimes: Sequence[str] | None = None
    compatible_architectures: Sequence[str] | None = None
    signed: bool = False
    statements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    policy_revision: str = ""
    deleted: bool = False


LAYERS = Kind("layers", Layer, ("name",))
LAYER_VERSIONS = Kind("layer_versions", LayerVersion, ("layer", "number"))


def layer_arn(name: str, partition: Partition, number: int | None = None) -> str:
    """Write the ARN of a layer, or of a version of it."""
    arn = f"arn:{partition_of(partition.region)}:lambda:{partition.region}:{partition.account}:layer:{name}"
    return arn if number is None else f"{arn}:{number}"


def layer_key(version_arn: str) -> tuple[str, int]:
    """Read from the ARN of a version the key under which its own account and region keep it."""
    name, number = version_arn.split(":")[6:8]
    return name, int(number)
