"""Answers that fit an annotation: the zero value, and random ones. Mock mode gives them instead of running handlers.

An answer is made as JSON from the schema of the annotation, validated into the annotation's type, and written as a
result of that type is written; so an answer always fits, or there is none. A result that is ``bytes`` is no JSON: it is
answered as it is, as a handler's would be. No code of the handler runs; validators and serialisers of its types do,
factories of defaults do not.

**Zero values.** What a value is that nobody set:

========================================= ==============================================================================
annotation                                zero value
========================================= ==============================================================================
none, ``Any``, ``None``, ``X | None``     ``null``
``bool``, numbers, ``str``                ``false``, ``0``, ``""``
``bytes``                                 ``""``; where it is the whole result, no bytes at all
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
from collections.abc import Callable, Collection, Iterator, Mapping
from random import Random
from typing import Any

from serverfull.contracts import annotations as kinds
from serverfull.contracts.ranges import NothingFits
from serverfull.contracts.schemas import answer_schema, shown_schema
from serverfull.contracts.shapes import Making, Shapes
from serverfull.contracts.validation import adapter, lenient_validator, problems, title_of
from serverfull.domain.json_functions import dumps, loads

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
            reason = str(error).partition(": ")[2].rstrip(".")
            raise AnswerImpossible(f"{where}: {reason}. Give a static answer") from None
        self._shapes = Shapes(answer_schema(made))
        self._validate = lenient_validator(made)
        self._write = _writer(made, annotation)

    def zero(self) -> Any:
        """Give the zero value, as JSON has it; bytes where the whole result is.

        :raises AnswerImpossible: there is none; the message names the field and what is wrong with it.
        """
        return self._first_that_fits(self._zeros())

    def random(self, rng: Random) -> Any:
        """Give a random value, as JSON has it, or bytes; it depends on the generator's state alone.

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
    """Make the function that turns a result into JSON as a runtime does for this annotation; it leaves bytes alone."""
    if not kinds.needs_serialising(annotation):
        return lambda value: value if isinstance(value, bytes) else loads(dumps(value, default=_as_number))
    has_sets = "uniqueItems" in dumps(shown_schema(made, "validation"), default=str)

    def write(value: Any) -> Any:
        if isinstance(value, bytes):
            return value
        written = loads(dumps(made.dump_python(value, mode="json", warnings=False)))
        return _ordered(value, written) if has_sets else written

    return write


def _as_number(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return importlib.import_module("pydantic_core").to_jsonable_python(value)


def _ordered(value: Any, written: Any) -> Any:
    """Sort what was a set, because the order of a set differs from process to process.

    :param written: the value as JSON; its parts come in the order of the value's parts.
    """
    if isinstance(written, dict):
        parts = _fields_of(value)
        return {name: _ordered(parts.get(name), item) for name, item in written.items()}
    if not isinstance(written, list) or not isinstance(value, Collection):
        return _ordered(value.root, written) if isinstance(written, list) and hasattr(value, "root") else written
    items = [_ordered(part, item) for part, item in zip(value, written, strict=True)]
    return sorted(items, key=dumps) if isinstance(value, (set, frozenset)) else items


def _fields_of(value: Any) -> dict[str, Any]:
    """Give the parts of a value by the names that JSON has for them."""
    if hasattr(value, "root"):
        return _fields_of(value.root)
    if isinstance(value, Mapping):
        keys = loads(importlib.import_module("pydantic_core").to_json(dict.fromkeys(value)))
        return dict(zip(keys, value.values(), strict=True))
    found = dict(vars(value)) if hasattr(value, "__dict__") else {}
    for name, field in getattr(type(value), "model_fields", {}).items():
        found[field.serialization_alias or field.alias or name] = getattr(value, name)
    return found
