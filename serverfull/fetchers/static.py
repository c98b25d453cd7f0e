"""The functions that are known when the host starts, in a mapping that never changes.

Made by ``targets`` for ``serverfull serve`` and by users of ``create_app``. Reading needs no lock and never waits, so
this is also the fetcher that several processes can share.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from serverfull.domain.functions import Function
from serverfull.errors import NotFoundError
from serverfull.interfaces import Fetcher

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NEWEST = (None, "$LATEST")


class StaticFetcher(Fetcher):
    """Serves a fixed set of functions. The management API cannot change them.

    :param functions: a handler or a `Function` under each name; a plain handler becomes a Function with all defaults.
    :raises ValueError: a name that AWS would not take, or a Function that was never given a handler.
    :raises TypeError: a value that is neither a Function nor callable.

    AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html (FunctionName)
    """

    source = "static"
    _fixed = False  # what inherits may fetch more than there is here

    def __init__(self, functions: Mapping[str, Function | Callable[..., Any]]) -> None:
        self._functions = MappingProxyType({checked_name(name): _wrapped(name, f) for name, f in functions.items()})
        self._fixed = type(self).fetch is StaticFetcher.fetch

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function of that name; there are no versions and no aliases, only ``$LATEST``."""
        if qualifier not in _NEWEST:
            raise NotFoundError(f"{name}:{qualifier}")
        try:
            return self._functions[name]
        except KeyError:
            raise NotFoundError(name) from None

    def lacks(self, name: str) -> bool:
        """Say whether there is no function of that name."""
        return self._fixed and name not in self._functions

    async def list(self) -> Mapping[str, Function]:
        """Give all functions, in the order in which they were registered."""
        return self._functions


def is_name(name: object) -> bool:
    """Say whether a function may have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def checked_name(name: object) -> str:
    """Give back a name that AWS takes for a function.

    :raises ValueError: anything else; the message says what is allowed.
    """
    if is_name(name):
        return str(name)
    raise ValueError(f"{name!r} is no function name: it takes 1 to 64 letters, digits, hyphens and underscores")


def _wrapped(name: str, function: object) -> Function:
    if isinstance(function, Function):
        if function.handler is None:
            raise ValueError(f"the Function named {name!r} has no handler")
        return function
    if callable(function):
        return Function(function)
    raise TypeError(f"{name!r} is a {type(function).__name__}, which is neither a Function nor callable")
