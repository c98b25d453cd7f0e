"""Code signing configurations: whose packages functions accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serverfull.domain.names import partition_of
from serverfull.domain.records import Kind, Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSigningConfig:
    """A code signing configuration.

    :param id: ``csc-`` and 17 characters.
    :param publishers: ARNs of the signing profiles that are trusted.
    :param policy: ``Warn`` or ``Enforce``: what happens to packages that nobody trusted has signed.
    :param last_modified: as AWS writes it, ``2026-11-21T04:30:00.000+0000``.
    """

    id: str
    publishers: Sequence[str]
    policy: str = "Warn"
    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    last_modified: str


CODE_SIGNING_CONFIGS = Kind("code_signing_configs", CodeSigningConfig, ("id",))


def code_signing_arn(config_id: str, partition: Partition) -> str:
    """Write the ARN of a code signing configuration."""
    return (
        f"arn:{partition_of(partition.region)}:lambda:{partition.region}:{partition.account}"
        f":code-signing-config:{config_id}"
    )
