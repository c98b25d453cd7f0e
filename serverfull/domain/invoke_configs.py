"""What is done with events that a function failed to take: retries, ages and destinations of ``Event`` invocations."""

from __future__ import annotations

from dataclasses import dataclass

from serverfull.domain.names import LATEST
from serverfull.domain.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class EventInvokeConfig:
    """The configuration of a version or an alias.

    :param qualifier: the version, the alias, or ``$LATEST``.
    :param maximum_retry_attempts: how often a failed event is tried again, 0 to 2; None: AWS's default, 2.
    :param maximum_event_age: seconds after which an event is given up, 60 to 21,600; None: AWS's default, 21,600.
    :param on_success: ARN that gets a record of each event that was handled; None: nobody.
    :param on_failure: ARN that gets a record of each event that was given up; None: nobody.
    :param last_modified: seconds since the epoch.
    """

    function: str
    qualifier: str = LATEST
    maximum_retry_attempts: int | None = None
    maximum_event_age: int | None = None
    on_success: str | None = None
    on_failure: str | None = None
    last_modified: float


EVENT_INVOKE_CONFIGS = Kind("event_invoke_configs", EventInvokeConfig, ("function", "qualifier"), of_function=True)
