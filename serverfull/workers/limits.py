"""What a limit means for several workers: shared, divided or refused, never multiplied.

Shared are the limits of concurrency (`SharedAdmission`) and of lost threads (`LostElsewhere`). Divided, because each
process owns what is counted, are open connections and waiting events: a worker gets its part, rounded down. Refused is
what cannot be divided, and functions that are not known at start, which each worker would see differently.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serverfull.errors import ConfigurationError
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.mocking import MockingFetcher
from serverfull.fetchers.observing import ObservingFetcher
from serverfull.fetchers.static import StaticFetcher

if TYPE_CHECKING:
    from serverfull.config import Settings
    from serverfull.interfaces import Fetcher

DIVIDED = (
    ("server", "max_connections"),
    ("server", "max_connections_per_client"),
    ("limits", "event_backlog"),
    ("limits", "function_event_backlog"),
)
"""The settings, by group and field, of which each worker gets a part."""


def check_limits(settings: Settings) -> None:
    """Refuse what cannot be kept true over so many workers.

    :raises ConfigurationError: naming the setting.
    """
    workers = settings.server.workers
    for group, field in DIVIDED:
        value = getattr(getattr(settings, group), field)
        if value < workers:
            raise ConfigurationError(
                f"{group}.{field} is {value} and server.workers is {workers}: it is divided among the workers and each "
                "needs at least 1. Raise the one or lower the other."
            )


def part_of(settings: Settings, number: int) -> Settings:
    """Give the settings of one worker.

    :param number: 0 for the first worker, which alone serves ``admin_address``.
    """
    workers = settings.server.workers
    server: dict[str, Any] = {} if number == 0 else {"admin_address": ""}
    limits: dict[str, Any] = {}
    for group, field in DIVIDED:
        part = getattr(getattr(settings, group), field) // workers
        (server if group == "server" else limits)[field] = part
    return replace(settings, server=replace(settings.server, **server), limits=replace(settings.limits, **limits))


def check_functions(fetcher: Fetcher) -> None:
    """Refuse functions that may come and go while the host runs.

    :raises ConfigurationError: unless each comes from a `StaticFetcher`, chained or observed as may be.
    """
    if not _is_static(fetcher):
        raise ConfigurationError(
            f"server.workers is more than 1 and the functions come from a {type(fetcher).__name__}: several workers "
            "need functions that are known at start (a mapping, a StaticFetcher, or a ChainFetcher of those)"
        )


def _is_static(fetcher: Fetcher) -> bool:
    if isinstance(fetcher, ChainFetcher):
        return all(map(_is_static, fetcher._fetchers))
    if isinstance(fetcher, (ObservingFetcher, MockingFetcher)):
        return _is_static(fetcher._fetcher)
    return isinstance(fetcher, StaticFetcher)
