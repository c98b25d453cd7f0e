"""What was published of a function beside its packages: kept so that a host knows what it still has to take back."""

from __future__ import annotations

from dataclasses import dataclass

from serverfull.domain.records import Kind

LAYOUT = 2
"""Documents as `serverfull.domain.function_documents` writes them, which fetchers read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFunction:
    """A function whose document is in the bucket.

    :param digest: the SHA-256 of the document, in hexadecimal.
    :param layout: where the document is: 1 as the first versions of serverfull had it, else `LAYOUT`.
    """

    name: str
    digest: str
    layout: int = 1


PUBLISHED_FUNCTIONS = Kind("published_functions", PublishedFunction, ("name",))
