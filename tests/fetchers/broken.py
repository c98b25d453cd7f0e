"""A fetcher whose functions are out of reach."""

from __future__ import annotations

from collections.abc import Mapping

from serverfull.domain.functions import Function
from serverfull.interfaces import Fetcher


class Broken(Fetcher):
    """Fails in everything."""

    source = "broken"

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        raise ConnectionError("bucket unreachable")

    async def list(self) -> Mapping[str, Function]:
        raise ConnectionError("bucket unreachable")
