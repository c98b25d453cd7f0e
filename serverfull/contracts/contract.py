"""The contract of a function: what it takes, gives back and raises. Mock mode, documents and checks are made of it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from serverfull.contracts.annotations import needs_serialising
from serverfull.contracts.answers import AnswerImpossible, Answers
from serverfull.contracts.fitting import misfits
from serverfull.contracts.schemas import shown_schema
from serverfull.contracts.signatures import EMPTY, annotations_of, innermost_handler
from serverfull.contracts.validation import ResultInvalid, adapter, event_decoder, result_reader
from serverfull.domain.functions import DeclaredError, Function

_SAMPLE = 10


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

    def validate_result(self, value: Any) -> Any:
        """Refuse what is no result of this function; where nothing is known of its results, nothing is refused.

        :param value: as JSON has it, or an instance of the result's type.
        :returns: what a call is answered with: the value; as bytes where the result is bytes and JSON has their text.
        :raises ResultInvalid: the message names the fields.
        """
        try:
            read = self._read_result(value)
        except ResultInvalid:
            # A type may be written in a form that it does not read; then what it writes is described by its document.
            if self._reads_what_it_writes:
                raise
            if found := misfits(value, json_schema(self)["result"]):
                raise ResultInvalid("; ".join(found)) from None
            return value
        return read if isinstance(read, bytes) else value

    @functools.cached_property
    def answers(self) -> Answers:
        """Make the function's mock answers; prepared at the first use.

        :raises AnswerImpossible: nothing is known of what fits the annotation of the result.
        """
        return Answers(self.result, f"the result of {self.name}")

    @functools.cached_property
    def _read_result(self) -> Callable[[Any], Any]:
        return result_reader(self.result, self.name)

    @functools.cached_property
    def _reads_what_it_writes(self) -> bool:
        """Try whether results can be read back as they are written."""
        rng = Random(0)  # noqa: S311 - a sample, no secret
        try:
            for written in (self.answers.zero(), *(self.answers.random(rng) for _ in range(_SAMPLE))):
                self._read_result(written)
        except ResultInvalid:
            return False
        except AnswerImpossible:
            return True
        return True


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
        return DeclaredErrorContract(type(error).__name__, _text_of(error))
    lines = inspect.cleandoc(error.__doc__ or "").splitlines()
    is_made = dataclasses.is_dataclass(error) and bool(lines) and lines[0].startswith(f"{error.__name__}(")
    return DeclaredErrorContract(error.__name__, "" if is_made or not lines else lines[0])


def _text_of(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except Exception as broken:  # the user's own __str__; a real call has an answer all the same, and says this
        return f"<{type(error).__name__}.__str__ failed: {type(broken).__name__}>"


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
