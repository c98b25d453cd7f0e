"""``GET /_serverfull/contracts``: what the functions take, give back and raise, for those who call them.

`Front` answers with it to whoever may invoke. The documents are those of ``serverfull contracts``, so an answer can be
kept in a file and compared with later ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.json_functions import dumps
from serverfull.domain.names import function_not_found
from serverfull.errors import FunctionNotReady, NotFoundError

if TYPE_CHECKING:
    from serverfull.domain.functions import Function
    from serverfull.interfaces import Fetcher


class ContractDocuments:
    """Writes the contracts of functions, once for each; in a thread, because it imports and builds a lot.

    :param fetcher: gives the functions as they were registered, also in mock mode.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._known: WeakKeyDictionary[Function, dict[str, Any]] = WeakKeyDictionary()

    async def every(self) -> bytes:
        """Give the contracts of all functions by name, as JSON."""
        functions = await self._fetcher.list()
        known = sorted(name for name, function in functions.items() if _is_loaded(function))
        return _json({name: await self._document(name, functions[name]) for name in known})

    async def one(self, name: str, qualifier: str | None, account: str, region: str) -> bytes:
        """Give the contract of one function, as JSON.

        :param account: where the function is said not to be, if there is none.
        :raises NotFoundError: there is no such function or version.
        """
        try:
            function = await self._fetcher.fetch(name, qualifier)
            if not _is_loaded(function):
                raise NotFoundError(name)
        except NotFoundError:
            missing = function_not_found(name, account, region, qualifier)
            hint = "Contracts are those of functions that the host has loaded, not of those that run elsewhere."
            raise NotFoundError(missing.name, f"{missing.message}. {hint}") from None
        return _json(await self._document(name, function))

    async def _document(self, name: str, function: Function) -> dict[str, Any]:
        by_name = self._known.setdefault(function, {})
        if name not in by_name:
            by_name[name] = await asyncio.to_thread(_document, name, function)
        document: dict[str, Any] = by_name[name]
        return document


def _is_loaded(function: Function) -> bool:
    """Say whether there is a handler to look at, and no promise of one."""
    return not isinstance(function.handler, DeployedHandler)


def _document(name: str, function: Function) -> dict[str, Any]:
    from serverfull.contracts.contract import contract_of, json_schema

    try:
        return json_schema(contract_of(name, function))
    except TypeError as unfit:
        raise FunctionNotReady(name, "Failed", str(unfit)) from None


def _json(document: Mapping[str, Any]) -> bytes:
    return dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
