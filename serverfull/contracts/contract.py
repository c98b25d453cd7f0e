"""The contract of a function: what it takes, gives back and raises. Mock mode, documents and checks are made of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serverfull.contracts.annotations import needs_serialising
from serverfull.contracts.answers import Answers
from serverfull.contracts.schemas import shown_schema
from serverfull.contracts.signatures import EMPTY, annotations_of, innermost_handler
from serverfull.contracts.validation import adapter, event_decoder, result_check
from serverfull.domain.functions import DeclaredError, Function


@dataclass(frozen=True, slots=True)
class DeclaredErrorContract:
    """An error that a function says it may raise.

    :param error_type: the name of the exception's class, as ``errorType`` has it.
    :param message: the text of a declared instance; of a class the first line of its own docstring, or nothing.
    """

    error_type: str
    message: str


@dataclass(frozen=True)
class Contract:
    """What a function takes, gives back and raises.

    :param name: the function's name.
    :param event: the resolved annotation of the event; `Any` where there is none.
    :param result: the resolved annotation of the result; `Any` where there is none.
    """

    name: str
    event: Any
    result: Any
    errors: tuple[DeclaredErrorContract, ...]
    _decode: Callable[[Any], Any] | None = field(repr=False, compare=False)

    def validate_event(self, event: Any) -> None:
        """Refuse the events that a real call would refuse.

        :param event: the event as JSON gives it.
        :raises EventInvalid: as a real call would, with the same message.
        """
        if self._decode is not None:
            self._decode(event)

    def validate_result(self, value: Any) -> None:
        """Refuse what is no result of this function; where nothing is known of its results, nothing is refused.

        Results are read here as events are: a type that forbids unknown fields refuses its computed ones, too.

        :param value: as JSON has it, or an instance of the result's type.
        :raises ResultInvalid: the message names the fields.
        """
        self._check_result(value)

    @functools.cached_property
    def answers(self) -> Answers:
        """Make the function's mock answers; prepared at the first use.

        :raises AnswerImpossible: nothing is known of what fits the annotation of the result.
        """
        return Answers(self.result, f"the result of {self.name}")

    @functools.cached_property
    def _check_result(self) -> Callable[[Any], None]:
        return result_check(self.result, self.name)


def contract_of(name: str, function: Function) -> Contract:
    """Read the contract of a function; its handler is not called.

    :raises TypeError: the function has no handler, or its annotations cannot be used; as `Runtime.check` would.
    """
    handler_name = function.handler_name
    event, result = annotations_of(innermost_handler(function), handler_name)
    return Contract(
        name=name,
        event=Any if event is EMPTY else event,
        result=Any if result is EMPTY else result,
        errors=tuple(_declared(error) for error in function.errors),
        _decode=event_decoder(event, handler_name),
    )


def _declared(error: DeclaredError) -> DeclaredErrorContract:
    if isinstance(error, BaseException):
        return DeclaredErrorContract(type(error).__name__, str(error))
    lines = inspect.cleandoc(error.__doc__ or "").splitlines()
    return DeclaredErrorContract(error.__name__, lines[0] if lines else "")


def json_schema(contract: Contract) -> dict[str, Any]:
    """Give the document of a contract: JSON Schema (2020-12) of the event and the result, and the declared errors.

    The event is described as it is read, the result as it is written. ``{}`` takes anything: no annotation, or one that
    pydantic cannot use. The order of keys is the same in every process.
    """
    return {
        "name": contract.name,
        "event": _schema_of(contract.event, contract.name, "validation"),
        "result": _schema_of(contract.result, contract.name, "serialization"),
        "errors": [{"errorType": error.error_type, "message": error.message} for error in contract.errors],
    }


def documents(contracts: Mapping[str, Contract]) -> dict[str, Any]:
    """Give the documents of several contracts, by name and in the order of names: what a committed file holds."""
    return {name: json_schema(contracts[name]) for name in sorted(contracts)}


def _schema_of(annotation: Any, name: str, mode: str) -> dict[str, Any]:
    if annotation is Any:
        return {}
    try:
        made = adapter(annotation, name)
    except TypeError:
        return {}
    return shown_schema(made, mode, decimals_are_numbers=not needs_serialising(annotation))
