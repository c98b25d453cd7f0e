"""Events against the annotation of a handler: prepared once at start, asked at every call.

Runtimes decode events with it, and mock mode checks them with it, so both refuse the same events in the same words.
pydantic is imported where an annotation needs it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from serverfull.contracts import annotations as kinds
from serverfull.domain.json_functions import dumps

_MOST_PROBLEMS = 100


class EventInvalid(Exception):
    """The event does not fit the annotation of the handler; the handler did not run.

    :param message: the field paths and what is wrong with each.
    """

    error_type = "ValidationError"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ResultInvalid(Exception):
    """A value does not fit the annotation of the result; the message has the field paths and what is wrong."""


def event_decoder(annotation: Any, name: str) -> Callable[[Any], Any] | None:
    """Make the function that turns an event into what the annotation says; it raises `EventInvalid`.

    None: an event of this annotation is taken as JSON gives it.

    :param name: what messages call the handler.
    :raises TypeError: pydantic cannot use the annotation.
    """
    if (container := kinds.plain_container(annotation)) is not None:
        return functools.partial(_check_container, container, title_of(annotation))
    return _validator(adapter(annotation, name), title_of(annotation)) if kinds.describes(annotation) else None


def _check_container(container: type, title: str, event: Any) -> Any:
    # What pydantic would say, without importing it for the most common annotation of all.
    if not isinstance(event, container):
        kind = "an object" if container is dict else "a valid array"
        raise EventInvalid(f"1 validation error for {title}: event: Input should be {kind}")
    return event


def adapter(annotation: Any, name: str) -> Any:
    """Make pydantic's ``TypeAdapter`` of an annotation.

    :param name: what messages call the handler.
    :raises TypeError: pydantic cannot use the annotation.
    """
    pydantic = importlib.import_module("pydantic")
    try:
        made = pydantic.TypeAdapter(kinds.for_pydantic(annotation))
        if not getattr(made, "pydantic_complete", True):
            made.rebuild(raise_errors=True)  # names the type of a field that is missing, which else each call would
        return made
    except (
        pydantic.errors.PydanticUserError,
        importlib.import_module("pydantic_core").SchemaError,
        NameError,
        TypeError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise TypeError(f"handler {name}: pydantic cannot use the annotation {annotation!r}: {reason}") from None


def title_of(annotation: Any) -> str:
    """Give the annotation as messages show it: without the modules of its types."""
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return title_of(arguments[0])
    if any(typing.get_origin(argument) is typing.Annotated for argument in arguments) and kinds.is_union(annotation):
        return " | ".join("None" if argument is type(None) else title_of(argument) for argument in arguments)
    return re.sub(r"(?:[\w<>]+\.)+", "", str(annotation))


def _validator(adapter: Any, title: str) -> Callable[[Any], Any]:
    core = importlib.import_module("pydantic_core")

    def decode(event: Any) -> Any:
        try:
            return adapter.validate_python(event)
        except core.ValidationError as error:
            first = error
        # A strict model takes "2026-11-21" for a date only from JSON, so JSON has the last word on what does not fit.
        try:
            return adapter.validate_json(dumps(event))
        except core.ValidationError as error:
            found = first if error.errors()[0]["type"] == "json_invalid" else error
        raise EventInvalid(problems(found, title)) from None

    return decode


def problems(error: Any, title: str) -> str:
    """Say in one line what a ``ValidationError`` found: the paths of the fields and what is wrong with each."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(map(str, one['loc'])) or 'event'}: {one['msg']}" for one in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        shown.append(f"and {len(found) - _MOST_PROBLEMS} more")
    return f"{len(found)} validation error{'s' if len(found) != 1 else ''} for {title}: {'; '.join(shown)}"


def lenient_validator(made: Any) -> Callable[[Any], Any]:
    """Make the function that turns JSON, or values of Python, into the type of an adapter, by alias and by name.

    It raises pydantic's ``ValidationError``. Results are written by the names of fields, so these are taken too.
    """
    core = importlib.import_module("pydantic_core")
    both = _by_both_names(made)

    def validate(value: Any) -> Any:
        try:
            return made.validate_json(dumps(value), **both)
        except core.ValidationError as error:
            first = error
        except (TypeError, ValueError):  # no JSON: values of Python
            return made.validate_python(value, **both)
        try:
            return made.validate_python(value, **both)
        except core.ValidationError:
            raise first from None

    return validate


def _by_both_names(made: Any) -> dict[str, bool]:
    # pydantic before 2.11 has aliases alone.
    return {"by_name": True, "by_alias": True} if "by_name" in inspect.signature(made.validate_json).parameters else {}


def result_reader(annotation: Any, name: str) -> Callable[[Any], Any]:
    """Make the function that reads a result of this annotation; it raises `ResultInvalid` for a value that is none.

    What JSON has is read strictly, since it is what callers get: ``"1"`` is no number. Values of Python are converted,
    as a handler's are when they are written. Where pydantic cannot use the annotation nothing is known of results, and
    every value is taken.
    """
    try:
        made = adapter(annotation, name)
    except TypeError:
        return lambda value: value
    lenient, by = lenient_validator(made), _by_both_names(made)
    core = importlib.import_module("pydantic_core")

    def read(value: Any) -> Any:
        try:
            written = dumps(value)
        except (TypeError, ValueError):
            written = None
        try:
            return lenient(value) if written is None else made.validate_json(written, strict=True, **by)
        except core.ValidationError as error:
            raise ResultInvalid(problems(error, title_of(annotation)).replace("event: ", "result: ", 1)) from None

    return read
