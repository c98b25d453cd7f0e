"""Where and how many environments of a function run: capacity providers, and the bounds of versions that use them.

This also holds which runtime version a function's version asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serverfull.domain.names import partition_of
from serverfull.domain.records import Kind, Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityProvider:
    """A capacity provider, which on AWS is a group of EC2 instances.

    :param settings: the members of AWS's CapacityProvider that the caller gave, or AWS's defaults.
    :param last_modified: as AWS writes it, ``2026-11-21T04:30:00.000+0000``.
    """

    name: str
    settings: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    last_modified: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionScaling:
    """How many environments a version on a capacity provider has, at least and at most.

    :param qualifier: a version's number, or ``$LATEST.PUBLISHED``.
    :param minimum: None: AWS's default.
    :param maximum: None: AWS's default.
    """

    function: str
    qualifier: str
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeManagement:
    """When a version gets another version of its runtime.

    :param qualifier: the version's number, or ``$LATEST``.
    :param update_on: ``Auto``, ``FunctionUpdate`` or ``Manual``.
    :param runtime_version: the ARN to stay on; with ``Manual`` alone.
    """

    function: str
    qualifier: str
    update_on: str
    runtime_version: str | None = None


CAPACITY_PROVIDERS = Kind("capacity_providers", CapacityProvider, ("name",))
FUNCTION_SCALING = Kind("function_scaling", FunctionScaling, ("function", "qualifier"), of_function=True)
RUNTIME_MANAGEMENT = Kind("runtime_management", RuntimeManagement, ("function", "qualifier"), of_function=True)


def capacity_provider_arn(name: str, partition: Partition) -> str:
    """Write the ARN of a capacity provider."""
    return (
        f"arn:{partition_of(partition.region)}:lambda:{partition.region}:{partition.account}:capacity-provider:{name}"
    )
