"""Puts together what delivers, as the settings say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from serverfull.destinations.buckets import Buckets
from serverfull.destinations.choosing import ChoosingDeliverer
from serverfull.destinations.endpoints import endpoints_of
from serverfull.destinations.event_buses import EventBuses
from serverfull.destinations.functions import Functions
from serverfull.destinations.queues import Queues
from serverfull.destinations.services import Service
from serverfull.destinations.topics import Topics

if TYPE_CHECKING:
    from serverfull.config import DestinationSettings
    from serverfull.domain.invocations import Invocation
    from serverfull.interfaces import Deliverer

_BY_SERVICE: Mapping[str, Callable[[Service], Deliverer]] = MappingProxyType(
    {"sqs": Queues, "sns": Topics, "events": EventBuses, "s3": Buckets}
)


def make_deliverer(settings: DestinationSettings, accept: Callable[[Invocation], Awaitable[None]]) -> Deliverer:
    """Make what delivers to functions of this host, and to every service that has an endpoint.

    :param accept: takes an event of a function, as `serverfull.destinations.functions` says.
    :raises ConfigurationError: the settings contradict themselves.
    :raises ExtraMissing: boto3 is not installed.
    """
    services = {kind: _BY_SERVICE[kind](Service(endpoint)) for kind, endpoint in endpoints_of(settings).items()}
    return ChoosingDeliverer({"lambda": Functions(accept), **services})
