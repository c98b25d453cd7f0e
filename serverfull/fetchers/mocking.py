"""Functions that answer without running: a decorator of any fetcher. ``host.py`` puts one in place in mock mode.

A mocked function has the configuration of the real one and a handler of its own, which gives an answer. That handler is
annotated so that a runtime treats it like the real one: events are validated in the same way, and refused in the same
words. The real handler is looked at and never called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from serverfull.contracts.contract import contract_of
from serverfull.contracts.signatures import innermost_handler
from serverfull.contracts.validation import ResultInvalid
from serverfull.domain.functions import NOT_GIVEN, Function, Handler
from serverfull.errors import ConfigurationError, FunctionNotReady, TargetInvalid
from serverfull.fetchers.answers import Answer, MockAnswers, ZeroAnswers
from serverfull.interfaces import Fetcher

if TYPE_CHECKING:
    from serverfull.contracts.contract import Contract


class MockingFetcher(Fetcher):
    """Gives, for each function of another fetcher, one that answers without running it.

    :param fetcher: resolves the names.
    :param answers: what is answered, where the function's own ``mock`` does not say it. None: zero values.
    """

    def __init__(self, fetcher: Fetcher, answers: MockAnswers | None = None) -> None:
        self._fetcher = fetcher
        self._fetch = fetcher.fetch
        self._answers = answers or ZeroAnswers()
        # By function and name: one function may be served under two names, with two answers.
        self._mocked: WeakKeyDictionary[Function, dict[str, Function]] = WeakKeyDictionary()
        self.source = fetcher.source
        self.read_only = fetcher.read_only

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the mocked function of that name; the same object as long as the real one is the same.

        :raises NotFoundError: the wrapped fetcher has none.
        :raises FunctionNotReady: there is no usable answer; where the function is listed, the host's start says so.
        """
        function = await self._fetch(name, qualifier)
        try:
            return self._mocked[function][name]
        except KeyError:
            pass
        try:
            return self._mock(name, function)
        except (ConfigurationError, TargetInvalid) as unfit:
            raise FunctionNotReady(name, "Failed", str(unfit)) from None

    async def list(self) -> Mapping[str, Function]:
        """Give every function, mocked.

        :raises ConfigurationError: an answer that is written down cannot be used.
        :raises TargetInvalid: a function's ``mock`` does not fit its result, or there is no answer for its result.
        """
        functions = await self._fetcher.list()
        return {name: self._mocked.get(f, {}).get(name) or self._mock(name, f) for name, f in functions.items()}

    def source_of(self, name: str) -> str:
        """Ask the wrapped fetcher."""
        return self._fetcher.source_of(name)

    def _mock(self, name: str, function: Function) -> Function:
        try:
            contract = contract_of(name, function)
            if function.mock is NOT_GIVEN:
                handler = _answering(self._answers.answer(name, contract))
                handler.__annotations__ = {"event": contract.event, "return": Any}  # the answer is written as it is
            else:
                handler = _answering(_given(function, contract))
                # What the function's author gives is written as what the handler returns.
                handler.__wrapped__ = innermost_handler(function)  # type: ignore[attr-defined]
        except TypeError as unfit:
            raise TargetInvalid(f"function {name!r} cannot be mocked: {unfit}") from None
        mocked = replace(function, handler=_named_like(function, handler))
        self._mocked.setdefault(function, {})[name] = mocked
        return mocked


def _given(function: Function, contract: Contract) -> Answer:
    """Give what the function itself says mock mode answers."""
    value = function.mock
    if callable(value):
        answer: Answer = value
        return answer
    try:
        contract.validate_result(value)
    except ResultInvalid as unfit:
        raise TargetInvalid(f"the mock of function {contract.name!r} does not fit its result: {unfit}") from None
    return lambda _event: value


def _answering(answer: Answer) -> Handler:
    """Make a handler that gives answers."""
    if inspect.iscoroutinefunction(answer) or inspect.iscoroutinefunction(type(answer).__call__):

        async def mocked(event: Any, _context: Any) -> Any:
            return await answer(event)

    else:

        async def mocked(event: Any, _context: Any) -> Any:
            return answer(event)

    return mocked


def _named_like(function: Function, handler: Handler) -> Handler:
    """Give a handler the name of the one that it stands for: messages and ``_HANDLER`` show it."""
    named: Any = function.handler if hasattr(function.handler, "__qualname__") else type(function.handler)
    handler.__module__, handler.__qualname__ = named.__module__, named.__qualname__
    return handler
