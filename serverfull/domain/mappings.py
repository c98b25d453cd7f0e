"""Event source mappings: which queue or stream feeds which function, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serverfull.domain.names import partition_of
from serverfull.domain.records import Kind, Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSourceMapping:
    """An event source mapping. It outlives its function, as on AWS.

    :param uuid: its id.
    :param target: the function's bare name; with a version or an alias, ``name:qualifier``.
    :param source: which kind of source it is, a key of `serverfull.management.event_sources.SOURCES`.
    :param event_source_arn: the ARN of the source; None where Kafka is self-managed.
    :param enabled: whether it is to poll.
    :param state: AWS's State: ``Enabled`` or ``Disabled`` while nothing changes, ``Creating``, ``Enabling``,
        ``Disabling``, ``Updating`` or ``Deleting`` while something does.
    :param settings: the other members of AWS's EventSourceMappingConfiguration as the caller gave them, or AWS's
        defaults, by their names there. Timestamps are seconds since the epoch.
    :param last_modified: seconds since the epoch.
    """

    uuid: str
    target: str
    source: str
    event_source_arn: str | None = None
    enabled: bool = True
    state: str = "Enabled"
    settings: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    last_modified: float

    @property
    def function(self) -> str:
        """The function's bare name."""
        return self.target.partition(":")[0]


EVENT_SOURCE_MAPPINGS = Kind(
    "event_source_mappings", EventSourceMapping, ("uuid",), indexed=("target", "event_source_arn")
)


def mapping_target(function: str, qualifier: str | None) -> str:
    """Write the target of a mapping."""
    return f"{function}:{qualifier}" if qualifier else function


def mapping_arn(uuid: str, partition: Partition) -> str:
    """Write the ARN of a mapping."""
    return (
        f"arn:{partition_of(partition.region)}:lambda:{partition.region}:{partition.account}"
        f":event-source-mapping:{uuid}"
    )
