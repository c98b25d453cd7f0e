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
        return pydantic.TypeAdapter(kinds.for_pydantic(annotation))
    except (pydantic.errors.PydanticUserError, NameError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"handler {name}: pydantic cannot use the annotation {annotation!r}: {reason}") from None


def title_of(annotation: Any) -> str:
    """Give the annotation as messages show it: without the modules of its types."""
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    if typing.get_origin(annotation) is typing.Annotated:
        return title_of(typing.get_args(annotation)[0])
    return re.sub(r"(?:[\w<>]+\.)+", "", str(annotation))


def _validator(adapter: Any, title: str) -> Callable[[Any], Any]:
    core = importlib.import_module("pydantic_core")
    json = importlib.import_module("json")

    def decode(event: Any) -> Any:
        try:
            return adapter.validate_python(event)
        except core.ValidationError as error:
            first = error
        # A strict model takes "2026-11-21" for a date only from JSON, so JSON has the last word on what does not fit.
        try:
            return adapter.validate_json(json.dumps(event))
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
    json = importlib.import_module("json")
    # pydantic before 2.11 has aliases alone.
    both = {"by_name": True, "by_alias": True} if "by_name" in inspect.signature(made.validate_json).parameters else {}

    def validate(value: Any) -> Any:
        try:
            return made.validate_json(json.dumps(value), **both)
        except core.ValidationError as error:
            first = error
        except (TypeError, ValueError):  # no JSON: values of Python
            return made.validate_python(value, **both)
        try:
            return made.validate_python(value, **both)
        except core.ValidationError:
            raise first from None

    return validate


def result_check(annotation: Any, name: str) -> Callable[[Any], None]:
    """Make the function that raises `ResultInvalid` for a value that is no result of this annotation.

    Where pydantic cannot use the annotation nothing is known of results, and every value is taken.
    """
    try:
        validate = lenient_validator(adapter(annotation, name))
    except TypeError:
        return lambda _value: None
    core = importlib.import_module("pydantic_core")

    def check(value: Any) -> None:
        try:
            validate(value)
        except core.ValidationError as error:
            raise ResultInvalid(problems(error, title_of(annotation)).replace("event: ", "result: ", 1)) from None

    return check
