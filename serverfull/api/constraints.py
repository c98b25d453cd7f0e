"""Checks a parsed request against the constraints of the model and words what is broken as AWS does.

Called by `serverfull.api.protocol` with the whole input, after types were checked by `serverfull.api.wire`. Several
problems are collected, so that a caller sees them all at once. Values of shapes that the model marks as sensitive are
never repeated.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from serverfull.domain.names import shown
from serverfull.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serverfull.api.model import Shape

MAX_PROBLEMS = 20
"""Problems in one answer: a hostile list of ten thousand bad items does not make an answer of megabytes."""

SHOWN_ITEMS = 20
"""Items of a list or map that a message repeats."""

_NOT_NULL = "Member must not be null"


def check_constraints(shape: Shape, value: Mapping[str, Any]) -> None:
    """Check a whole input.

    :raises ValidationFailed: one or several constraints are broken.
    """
    problems = list(islice(_of_structure(shape, value, ""), MAX_PROBLEMS))
    if problems:
        raise ValidationFailed(*problems)


def _of_structure(shape: Shape, value: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, member in shape.members.items():
        held = value.get(name)
        if held is not None:
            yield from _of_value(member.shape, held, prefix + member.path_name)
        elif name in shape.required:
            yield f"Value null at '{shown(prefix)}{member.path_name}' failed to satisfy constraint: {_NOT_NULL}"


def _of_value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if shape.type == "structure":
        yield from _of_structure(shape, value, path + ".")
        return
    for constraint in _broken(shape, value):
        yield _sentence(shape, value, path, constraint)
    if shape.type == "list":
        yield from _of_list(shape, value, path)
    elif shape.type == "map":
        yield from _of_map(shape, value, path)


def _of_list(shape: Shape, value: list[Any], path: str) -> Iterator[str]:
    item = _item_of(shape)
    if any(held is None or (_is_plain(item) and _is_broken(item, held)) for held in value):
        yield _sentence(shape, value, path, f"Member must satisfy constraint: [{_all_constraints(item)}]")
    if not _is_plain(item):
        for number, held in enumerate(value, 1):
            if held is not None:
                yield from _of_value(item, held, f"{path}.{number}.member")


def _of_map(shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
    key, item = shape.key, _item_of(shape)
    if key is not None and any(_is_broken(key, held) for held in value):
        yield _sentence(shape, value, path, f"Map keys must satisfy constraint: [{_all_constraints(key)}]")
    if any(held is None or (_is_plain(item) and _is_broken(item, held)) for held in value.values()):
        yield _sentence(shape, value, path, f"Map value must satisfy constraint: [{_all_constraints(item)}]")
    if not _is_plain(item):
        for name, held in value.items():
            if held is not None:
                yield from _of_value(item, held, f"{path}.{name}.member")


def _item_of(shape: Shape) -> Shape:
    assert shape.item is not None, f"the model gives {shape.name} no member"
    return shape.item


def _is_plain(shape: Shape) -> bool:
    return shape.type not in ("structure", "list", "map")


def _is_broken(shape: Shape, value: Any) -> bool:
    return next(_broken(shape, value), None) is not None


def _broken(shape: Shape, value: Any) -> Iterator[str]:
    """Give the constraints of this one shape that a value breaks, nothing below it."""
    if shape.minimum is None and shape.maximum is None and shape.pattern is None and not shape.enum:
        return
    measure, size = _measured(shape, value)
    too_much = shape.maximum is not None and size > shape.maximum
    if too_much:
        yield f"Member must have {measure} less than or equal to {shape.maximum}"
    if shape.minimum is not None and size < shape.minimum:
        yield f"Member must have {measure} greater than or equal to {shape.minimum}"
    # Patterns were not written with text in mind that is longer than allowed; some would take their time over it.
    if shape.pattern is not None and not too_much and not shape.matches(value):
        yield f"Member must satisfy regular expression pattern: {shape.pattern}"
    if shape.enum and value not in shape.enum:
        yield _enum_constraint(shape)


def _measured(shape: Shape, value: Any) -> tuple[str, float]:
    if shape.type in ("integer", "long", "double", "float"):
        return "value", value
    return "length", len(value)


def _enum_constraint(shape: Shape) -> str:
    return f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"


def _all_constraints(shape: Shape) -> str:
    """Word all constraints of a list's or map's member, as AWS does whichever of them is broken."""
    measure = "value" if shape.type in ("integer", "long", "double", "float") else "length"
    worded = []
    if shape.maximum is not None:
        worded.append(f"Member must have {measure} less than or equal to {shape.maximum}")
    if shape.minimum is not None:
        worded.append(f"Member must have {measure} greater than or equal to {shape.minimum}")
    if shape.pattern is not None:
        worded.append(f"Member must satisfy regular expression pattern: {shape.pattern}")
    if shape.enum:
        worded.append(_enum_constraint(shape))
    return ", ".join([*worded, _NOT_NULL])


def _sentence(shape: Shape, value: Any, path: str, constraint: str) -> str:
    repeated = _repeated(shape, value)
    told = "Value" if repeated is None else f"Value '{shown(repeated)}'"
    return f"{told} at '{shown(path)}' failed to satisfy constraint: {constraint}"


def _repeated(shape: Shape, value: Any) -> str | None:
    """Word a value as Java prints it; None where it is sensitive, or nothing that a message can show."""
    if _hides(shape) or shape.type in ("blob", "structure"):
        return None
    if shape.type == "list":
        return f"[{', '.join(map(str, value[:SHOWN_ITEMS]))}]"
    if shape.type == "map":
        return f"{{{', '.join(f'{name}={held}' for name, held in islice(value.items(), SHOWN_ITEMS))}}}"
    return str(value)


def _hides(shape: Shape) -> bool:
    below = [part for part in (shape.key, shape.item) if part is not None]
    # A list of structures could hold anything sensitive further down.
    return shape.sensitive or any(part.sensitive or not _is_plain(part) for part in below)
