"""Functions that answer without running: a decorator of any fetcher. `wiring.modes` puts one in place in mock mode.

A mocked function has the configuration of the real one and a handler of its own, which gives an answer. That handler is
annotated so that a runtime treats it like the real one: events are validated in the same way, and refused in the same
words. Events of plain types (``dict``, ``str``), which a real handler gets whatever they are, are validated too:
callers have to keep to the contract. The real handler is looked at and never called.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from serverfull.contracts.annotations import as_promised
from serverfull.contracts.contract import contract_of
from serverfull.contracts.signatures import EMPTY, annotations_of, innermost_handler
from serverfull.contracts.validation import ResultInvalid
from serverfull.domain.functions import NOT_GIVEN, Function, Handler
from serverfull.domain.records import Partition
from serverfull.errors import ConfigurationError, FunctionNotReady, TargetInvalid
from serverfull.fetchers.answers import Answer, MockAnswers, ZeroAnswers
from serverfull.fetchers.decorating import FetcherDecorator
from serverfull.interfaces import Fetcher

if TYPE_CHECKING:
    from serverfull.contracts.contract import Contract


class MockingFetcher(FetcherDecorator):
    """Gives, for each function of another fetcher, one that answers without running it.

    :param fetcher: resolves the names.
    :param answers: what is answered, where the function's own ``mock`` does not say it. None: zero values.
    """

    def __init__(self, fetcher: Fetcher, answers: MockAnswers | None = None) -> None:
        super().__init__(fetcher)
        self._answers = answers or ZeroAnswers()
        # By function and name: one function may be served under two names, with two answers.
        self._mocked: WeakKeyDictionary[Function, dict[str, Function]] = WeakKeyDictionary()
        self._last: dict[str, tuple[Function, Function]] = {}  # a weak look-up costs more than all the rest of a fetch

    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the mocked function of that name; the same object as long as the real one is the same.

        :raises NotFoundError: the wrapped fetcher has none.
        :raises FunctionNotReady: there is no usable answer; where the function is listed, the host's start says so.
        """
        function = await self._fetch(name, qualifier)
        last = self._last.get(name)
        if last is not None and last[0] is function:
            return last[1]
        try:
            mocked = self._mocked[function][name]
            self._last[name] = function, mocked
            return mocked
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

    def at(self, partition: Partition) -> Fetcher:
        """Mock what the wrapped fetcher gives for the partition."""
        view = self._fetcher.at(partition)
        if view is self._fetcher:
            return self
        mocking = MockingFetcher(view, self._answers)
        mocking._mocked = self._mocked
        return mocking

    def _mock(self, name: str, function: Function) -> Function:
        try:
            contract = contract_of(name, function)
            handler = self._handler(name, function, contract)
        except TypeError as unfit:
            raise TargetInvalid(f"function {name!r} cannot be mocked: {unfit}") from None
        handler.__annotations__["event"] = as_promised(contract.event)
        mocked = replace(function, handler=_named_like(function, handler))
        self._mocked.setdefault(function, {})[name] = mocked
        return mocked

    def _handler(self, name: str, function: Function, contract: Contract) -> Handler:
        if function.mock is NOT_GIVEN:
            handler = _answering(self._answers.answer(name, contract))
            handler.__annotations__ = {"return": Any}  # the answer is written as it is
            return handler
        handler = _answering(_given(function, contract))
        # What the function's author gives is written as what the handler returns.
        result = annotations_of(innermost_handler(function), function.handler_name)[1]
        handler.__annotations__ = {} if result is EMPTY else {"return": result}
        return handler


def _given(function: Function, contract: Contract) -> Answer:
    """Give what the function itself says mock mode answers."""
    value = function.mock
    if callable(value):
        return _checked(value, contract)
    try:
        contract.validate_result(value)
    except ResultInvalid as unfit:
        raise TargetInvalid(f"the mock of function {contract.name!r} does not fit its result: {unfit}") from None
    return lambda _event: value


def _checked(answer: Answer, contract: Contract) -> Answer:
    """Let a callable answer, and refuse what is no result of the function: the call ends with that error."""
    try:
        inspect.signature(answer).bind(None)
    except TypeError as unfit:
        raise TypeError(f"its mock is called with the event alone: {unfit}") from None
    except ValueError:
        pass  # written in C, without a signature

    def check(value: Any) -> Any:
        try:
            contract.validate_result(value)
        except ResultInvalid as unfit:
            raise ResultInvalid(f"the mock of function {contract.name!r} does not fit its result: {unfit}") from None
        return value

    if not _is_async(answer):
        return lambda event: check(answer(event))

    async def checked(event: Any) -> Any:
        return check(await answer(event))

    return checked


def _is_async(answer: Answer) -> bool:
    return inspect.iscoroutinefunction(answer) or inspect.iscoroutinefunction(type(answer).__call__)


def _answering(answer: Answer) -> Handler:
    """Make a handler that gives answers."""
    if _is_async(answer):

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
