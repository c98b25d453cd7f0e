"""What an annotation of a handler asks for. Runtimes and contracts use it at start; pydantic is not imported here."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import importlib
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

_UNIONS = (typing.Union, types.UnionType)
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_ARRAYS = (list, collections.abc.Sequence, collections.abc.MutableSequence)
_CONTAINERS = (*_OBJECTS, *_ARRAYS, tuple, set, frozenset, collections.abc.Set, collections.abc.Iterable)
_OF_PYTHON_ALONE = (complex, set, frozenset, collections.abc.Set, collections.abc.MutableSet, collections.deque)
_ANYTHING = (Any, object)
_MODULES_OF_VALUES = ("datetime", "uuid", "ipaddress", "pathlib", "fractions", "re")
_WRITTEN_AS_THEY_ARE = (*_ANYTHING, str, int, float, bool, bytes, None, type(None), ...)


def describes(annotation: Any) -> bool:
    """Say whether the annotation tells how the event is made up, so that validating against it makes sense."""
    annotation = _unaliased(annotation)
    origin = typing.get_origin(annotation)
    if origin in _UNIONS:
        return any(describes(member) for member in typing.get_args(annotation))
    if origin is None:
        return is_record(annotation) or _is_value_type(annotation) or _is_decimal(annotation)
    return origin in (typing.Annotated, typing.Literal) or origin in _CONTAINERS or is_record(origin)


def needs_serialising(annotation: Any) -> bool:
    """Say whether results of this annotation can hold what the JSON encoder does not know."""
    annotation = _unaliased(annotation)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin in _UNIONS:
        return any(needs_serialising(member) for member in arguments)
    if origin is typing.Literal:
        return any(isinstance(argument, enum.Enum) for argument in arguments)
    if origin is typing.Annotated or (origin or annotation) in _OF_PYTHON_ALONE:
        return True
    if origin in _CONTAINERS:
        return not all(_writes_itself(argument) for argument in arguments)
    return is_record(origin or annotation) or _is_value_type(annotation)


def _writes_itself(annotation: Any) -> bool:
    annotation = _unaliased(annotation)
    if typing.get_origin(annotation) in (*_UNIONS, *_OBJECTS, *_ARRAYS, tuple):
        return all(_writes_itself(argument) for argument in typing.get_args(annotation))
    return annotation in (*_WRITTEN_AS_THEY_ARE, dict, list, tuple) or _is_decimal(annotation)


def plain_container(annotation: Any) -> type | None:
    """Give dict for ``dict[str, Any]``, list for ``list[Any]`` and their likes; None for everything else."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _OBJECTS and len(arguments) == 2 and arguments[0] is str and arguments[1] in _ANYTHING:
        return dict
    return list if origin in _ARRAYS and len(arguments) == 1 and arguments[0] in _ANYTHING else None


def is_union(annotation: Any) -> bool:
    """Say whether it is a union, however it is written."""
    return typing.get_origin(annotation) in _UNIONS


def as_promised(annotation: Any) -> Any:
    """Give the annotation of events that refuses what the contract does not promise to take.

    A real handler gets any event where its annotation is a plain class such as ``dict`` or ``str``, as it does on AWS:
    to Python it is a note. To those who call a function it is the shape of the event, and its contract says so.
    """
    plain = _unaliased(annotation)
    if typing.get_origin(plain) in _UNIONS and not describes(plain):
        return typing.Union[tuple(map(as_promised, typing.get_args(plain)))]  # noqa: UP007 - members are known only now
    if plain in (dict, list, str, int, float, bool):
        return typing.Annotated[annotation, importlib.import_module("pydantic").Strict()]
    return annotation


def is_record(annotation: Any) -> bool:
    """Say whether it is a class with declared fields: a pydantic model, a dataclass, a TypedDict or a NamedTuple."""
    if not isinstance(annotation, type):
        return False
    return (
        hasattr(annotation, "__pydantic_core_schema__")
        or dataclasses.is_dataclass(annotation)
        or _is_typed_dict(annotation)
        or (issubclass(annotation, tuple) and hasattr(annotation, "_fields"))
    )


def _is_typed_dict(annotation: Any) -> bool:
    # Not typing.is_typeddict, which does not know those of typing_extensions.
    return isinstance(annotation, type) and hasattr(annotation, "__required_keys__")


def _is_decimal(annotation: Any) -> bool:
    """Say whether it is ``decimal.Decimal``, without importing that, or relying on a thread that just does."""
    return isinstance(annotation, type) and (annotation.__module__, annotation.__name__) == ("decimal", "Decimal")


def _is_value_type(annotation: Any) -> bool:
    """Say whether it is a class that JSON has no word for, and that pydantic reads from text or numbers."""
    return isinstance(annotation, type) and (
        issubclass(annotation, enum.Enum)
        or annotation.__module__ in _MODULES_OF_VALUES
        or hasattr(annotation, "__get_pydantic_core_schema__")
    )


def _unaliased(annotation: Any) -> Any:
    """Look through NewType and ``type X = ...``."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def for_pydantic(annotation: Any) -> Any:
    """Replace each ``typing.TypedDict`` by one of typing_extensions: before Python 3.12 pydantic takes only these."""
    return annotation if sys.version_info >= (3, 12) else _rebuilt(annotation, {})


def _rebuilt(annotation: Any, done: dict[Any, Any]) -> Any:
    if _is_typed_dict(annotation) and type(annotation).__module__ == "typing":
        if annotation not in done:
            done[annotation] = _empty_typed_dict(annotation)
            _fill_typed_dict(done[annotation], annotation, lambda inner: _rebuilt(inner, done))
        return done[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is None or origin is typing.Literal or not arguments:
        return annotation
    if origin is typing.Annotated:
        return typing.Annotated[(_rebuilt(arguments[0], done), *arguments[1:])]
    changed = tuple(_rebuilt(argument, done) for argument in arguments)
    if changed == arguments:
        return annotation
    return typing.Union[changed] if origin in _UNIONS else origin[changed]  # noqa: UP007 - members are known only now


def _empty_typed_dict(original: Any) -> Any:
    import typing_extensions

    make: Any = typing_extensions.TypedDict
    made = make(original.__name__, {})
    made.__module__ = original.__module__
    made.__doc__ = original.__doc__
    return made


def _fill_typed_dict(made: Any, original: Any, rebuild: Callable[[Any], Any]) -> None:
    """Give the fields, when the class is there already: a recursive one refers to itself in them."""
    required = set()
    for name, hint in typing.get_type_hints(original, include_extras=True).items():
        # The mark on the field first: where annotations are strings, __required_keys__ has not seen it.
        mark = typing.get_origin(hint)
        is_marked = mark in (typing.Required, typing.NotRequired)
        if mark is typing.Required if is_marked else name in original.__required_keys__:
            required.add(name)
        made.__annotations__[name] = rebuild(typing.get_args(hint)[0] if is_marked else hint)
    made.__required_keys__ = frozenset(required)
    made.__optional_keys__ = frozenset(made.__annotations__) - made.__required_keys__
