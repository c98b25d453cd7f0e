"""Answers that fit an annotation: the zero value, and random ones. Mock mode gives them instead of running handlers.

An answer is made as JSON from the schema of the annotation, validated into the annotation's type, and written as a
result of that type is written; so an answer always fits, or there is none. No code of the handler runs; validators and
serialisers of its types do, factories of defaults do not.

**Zero values.** What a value is that nobody set:

========================================= ==============================================================================
annotation                                zero value
========================================= ==============================================================================
none, ``Any``, ``None``, ``X | None``     ``null``
``bool``, numbers, ``str``, ``bytes``     ``false``, ``0``, ``""``
``list``, ``set``, ``dict``, ...          empty
``tuple[int, str]``, NamedTuple           each item its default or zero value
``Literal``, Enum                         the first
a union                                   the first member, in the order written, that can be made
model, dataclass, TypedDict               fields with a default: the default; other fields, and those with a factory:
                                          zero; ``NotRequired``: absent
``datetime``, ``date``, ``time``          1970-01-01T00:00:00Z, or as much of it as the type has
``timedelta``, ``UUID``                   ``PT0S``, 00000000-0000-0000-0000-000000000000
``Path``, IP addresses, URLs              ``.``, ``0.0.0.0`` and ``::``, ``http://localhost/``
========================================= ==============================================================================

Where a constraint refuses the zero value, it is the one nearest to it: ``Field(gt=0)`` gives 1, ``min_length=2`` gives
two items. Where nothing is known of a constraint (a validator that is code), some random values are tried.
"""

from __future__ import annotations

import decimal
import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from serverfull.contracts import annotations as kinds
from serverfull.contracts.ranges import NothingFits
from serverfull.contracts.schemas import answer_schema, shown_schema
from serverfull.contracts.shapes import Making, Shapes
from serverfull.contracts.validation import adapter, lenient_validator, problems, title_of

_ATTEMPTS = 100


class AnswerImpossible(TypeError):
    """There is no value, or none could be found, that fits the annotation; the message names the field."""


class Answers:
    """Makes answers of one annotation. Prepared once at start; `zero` and `random` are safe to call from any thread.

    :param annotation: a resolved annotation.
    :param where: what messages call it.
    :raises AnswerImpossible: pydantic cannot use the annotation, so nothing is known of what fits it.
    """

    def __init__(self, annotation: Any, where: str = "the result") -> None:
        self._title = title_of(annotation)
        self._where = where
        try:
            made = adapter(annotation, where)
        except TypeError as error:
            raise AnswerImpossible(f"{error}. Give a static answer") from None
        self._shapes = Shapes(answer_schema(made))
        self._validate = lenient_validator(made)
        self._write = _writer(made, annotation)

    def zero(self) -> Any:
        """Give the zero value, as JSON has it.

        :raises AnswerImpossible: there is none; the message names the field and what is wrong with it.
        """
        return self._first_that_fits(self._zeros())

    def random(self, rng: Random) -> Any:
        """Give a random value, as JSON has it; it depends on the generator's state alone.

        :raises AnswerImpossible: none was found.
        """
        return self._first_that_fits(self._randoms(rng))

    def _zeros(self) -> Iterator[Making]:
        yield Making(None)
        yield Making(None, defaults="made")
        yield Making(None, defaults="left")
        yield from self._randoms(Random(0))  # noqa: S311 - answers, no secrets

    def _randoms(self, rng: Random) -> Iterator[Making]:
        for attempt in range(_ATTEMPTS):
            yield Making(rng, defaults="made" if attempt % 2 else "given")

    def _first_that_fits(self, ways: Iterator[Making]) -> Any:
        first: str | None = None
        for making in ways:
            try:
                return self._write(self._validate(self._shapes.make(making)))
            except NothingFits as error:
                problem = str(error)
            except importlib.import_module("pydantic_core").ValidationError as error:
                problem = problems(error, self._title)
            except Exception as error:  # a validator or serialiser of the user's type: what it refuses does not fit
                problem = f"{type(error).__name__}: {error}"
            first = first or problem
        raise AnswerImpossible(
            f"{self._where}: no value was found that fits {self._title}: {first}. Give a static answer"
        )


def zero_value(annotation: Any) -> Any:
    """Give the zero value of an annotation, as JSON has it and as a handler's result would be written.

    :raises AnswerImpossible: no value fits, or none was found; the message names the field.
    """
    return Answers(annotation).zero()


def random_value(annotation: Any, rng: Random) -> Any:
    """Give a random value that fits an annotation, as JSON has it and as a handler's result would be written.

    The same state of the generator gives the same value, in every process. Whoever needs many values keeps `Answers`.

    :raises AnswerImpossible: no value fits, or none was found; the message names the field.
    """
    return Answers(annotation).random(rng)


# ------------------------------------------------------------------------------------------------------------- writing


def _writer(made: Any, annotation: Any) -> Callable[[Any], Any]:
    """Make the function that turns a result into JSON as a runtime does for this annotation."""
    if not kinds.needs_serialising(annotation):
        return lambda value: json.loads(json.dumps(value, default=_as_number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = shown_schema(made, "serialization")
    has_sets = "uniqueItems" in json.dumps(schema, default=str)

    def write(value: Any) -> Any:
        written = made.dump_python(value, mode="json", warnings=False)
        written = json.loads(json.dumps(written))
        return _ordered(schema, written, schema.get("$defs", {})) if has_sets else written

    return write


def _as_number(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return importlib.import_module("pydantic_core").to_jsonable_python(value)


def _ordered(schema: Any, value: Any, definitions: Mapping[str, Any]) -> Any:
    """Sort what was a set: its order differs from process to process.

    In a union every member is applied: to sort a list that was none does no harm.
    """
    if not isinstance(schema, dict) or not isinstance(value, (dict, list)):
        return value
    if "$ref" in schema:
        return _ordered(definitions.get(schema["$ref"].removeprefix("#/$defs/")), value, definitions)
    for member in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        value = _ordered(member, value, definitions)
    if isinstance(value, dict):
        fields, rest = schema.get("properties", {}), schema.get("additionalProperties")
        return {name: _ordered(fields.get(name, rest), item, definitions) for name, item in value.items()}
    placed = schema.get("prefixItems", [])
    items = [
        _ordered(placed[index] if index < len(placed) else schema.get("items"), item, definitions)
        for index, item in enumerate(value)
    ]
    return sorted(items, key=json.dumps) if schema.get("uniqueItems") else items
