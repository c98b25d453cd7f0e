"""What was published of a function beside its packages: kept so that a host knows what it still has to take back."""

from __future__ import annotations

from dataclasses import dataclass

from serverfull.domain.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFunction:
    """A function whose document is in the bucket.

    :param digest: the SHA-256 of the document, in hexadecimal.
    """

    name: str
    digest: str


PUBLISHED_FUNCTIONS = Kind("published_functions", PublishedFunction, ("name",))
