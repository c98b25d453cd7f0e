"""Pages of listings: the one way in which operations read Marker and MaxItems and cut their answers.

A Marker is the key of the last record that was given, as opaque base64, so a page costs the same wherever it begins
and a record that is deleted meanwhile does no harm. Called by every ``List`` operation of `serverfull.management`::

    page = read_page(request, str, str)
    cut = page.cut(records.list(ALIASES, name, after=page.after, limit=page.limit), ALIASES.key_of)
    return {"Aliases": [...cut.items...], "NextMarker": cut.next_marker}
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from serverfull.domain.json_functions import dumps, loads
from serverfull.errors import InvalidParameterValue

if TYPE_CHECKING:
    from serverfull.domain.records import KeyPart

PAGE_SIZE = 50
"""Items of a page where the operation has no number of its own, as in AWS; MaxItems can only make pages smaller."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Cut(Generic[Item]):
    """A page that was read.

    :param next_marker: where the next page begins; None where this one is the last.
    """

    items: Sequence[Item]
    next_marker: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """What a caller asks for.

    :param after: the key behind which the page begins; None: at the start.
    :param size: items at most.
    """

    after: tuple[KeyPart, ...] | None
    size: int

    @property
    def limit(self) -> int:
        """How many items to read: one more than go out, which tells whether there is another page."""
        return self.size + 1

    def cut(self, items: Sequence[Item], key: Callable[[Item], tuple[KeyPart, ...]]) -> Cut[Item]:
        """Make a page of items that were read with `after` and `limit`.

        :param key: gives the parts that the Marker is made of.
        """
        if len(items) <= self.size:
            return Cut(items, None)
        kept = items[: self.size]
        return Cut(kept, write_marker(key(kept[-1])))


def read_page(request: Mapping[str, Any], *parts: type[KeyPart], size: int = PAGE_SIZE) -> Page:
    """Read Marker and MaxItems.

    :param parts: the types of the parts of the Marker's key, ``str`` or ``int`` each.
    :param size: items of a page at most, whatever MaxItems says.
    :raises InvalidParameterValue: the Marker is none that the operation gave.
    """
    return Page(read_marker(request.get("Marker"), *parts), min(request.get("MaxItems", size), size))


def write_marker(key: Sequence[KeyPart]) -> str:
    """Write the Marker of the page that begins behind a key."""
    return base64.urlsafe_b64encode(dumps(list(key)).encode()).decode("ascii")


def read_marker(marker: str | None, *parts: type[KeyPart]) -> tuple[KeyPart, ...] | None:
    """Read what `write_marker` wrote, whether there still is a record with that key or not; None for the first page.

    :param parts: the types that the parts of the key must have; without them one or more of any type will do.
    :raises InvalidParameterValue: it is nothing of the kind.
    """
    if not marker:
        return None
    try:
        key = loads(base64.b64decode(marker, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        key = None
    if not isinstance(key, list) or not _is_key(key, parts):
        raise InvalidParameterValue("The Marker is not one that this operation returned.")
    return tuple(key)


def _is_key(key: list[object], parts: Sequence[type[KeyPart]]) -> bool:
    # Exact types, because a bool is an int, and what a store would make of another type is anybody's guess.
    if parts:
        return [type(part) for part in key] == list(parts) and all(map(_fits, key))
    return bool(key) and all(type(part) in (str, int) and _fits(part) for part in key)


def _fits(part: object) -> bool:
    """Tell whether a store can compare it: integers of 64 bits, text that is Unicode."""
    if isinstance(part, int):
        return -(1 << 63) <= part < 1 << 63
    return isinstance(part, str) and part.isprintable()
