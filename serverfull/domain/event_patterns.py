"""Event patterns: EventBridge's language for saying which events are meant, as filters of event source mappings use it.

Pure functions. This checks patterns; nothing is matched yet.

AWS: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from serverfull.domain.json_functions import loads

MAX_DEPTH = 64
"""Objects within objects. AWS's patterns are 4,096 characters long at most."""

_COMPARISONS = frozenset(("<", "<=", "=", ">", ">="))
_LARGEST = 5e9


def parse_event_pattern(text: str) -> dict[str, Any]:
    """Read a pattern.

    :raises ValueError: it is not JSON, or no pattern.
    """
    try:
        pattern = loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_object(pattern, 0)
    return dict(pattern)


def _check_object(pattern: object, depth: int) -> None:
    if not isinstance(pattern, dict) or not pattern or depth > MAX_DEPTH:
        raise ValueError("a pattern is an object with at least one field")
    for name, value in pattern.items():
        if name == "$or" and isinstance(value, list) and all(isinstance(choice, dict) for choice in value):
            _check_choices(value, depth)
        elif isinstance(value, dict):
            _check_object(value, depth + 1)
        else:
            _check_matchers(value)


def _check_choices(choices: list[Any], depth: int) -> None:
    if len(choices) < 2:
        raise ValueError("$or needs two patterns at least")
    for choice in choices:
        _check_object(choice, depth + 1)


def _check_matchers(matchers: object) -> None:
    if not isinstance(matchers, list) or not matchers:
        raise ValueError("a field has a list of values that are meant")
    for matcher in matchers:
        if isinstance(matcher, dict):
            _check_operator(matcher)
        elif isinstance(matcher, list):
            raise ValueError("a list of values holds no lists")  # noqa: TRY004  # one error for all that is no pattern


def _check_operator(matcher: dict[str, Any]) -> None:
    if len(matcher) != 1:
        raise ValueError("an operator stands alone in its object")
    [(name, operand)] = matcher.items()
    check = _OPERATORS.get(name)
    if check is None or not check(operand):
        raise ValueError(f"{name} is no operator, or not with this value")


def _is_text(operand: object) -> bool:
    return isinstance(operand, str) and bool(operand)


def _is_affix(operand: object) -> bool:
    """Tell whether something can be a prefix or a suffix, with regard to case or without."""
    if isinstance(operand, dict):
        return list(operand) == ["equals-ignore-case"] and _is_text(operand["equals-ignore-case"])
    return _is_text(operand)


def _is_number(operand: object) -> bool:
    return isinstance(operand, (int, float)) and not isinstance(operand, bool) and -_LARGEST <= operand <= _LARGEST


def _is_value(operand: object) -> bool:
    return isinstance(operand, str) or _is_number(operand)


def _is_range(operand: object) -> bool:
    """Tell whether something is a comparison with a number, or two that make a range."""
    if not isinstance(operand, list) or len(operand) not in (2, 4):
        return False
    signs, numbers = operand[::2], operand[1::2]
    if not all(isinstance(sign, str) and sign in _COMPARISONS for sign in signs) or not all(map(_is_number, numbers)):
        return False
    if len(signs) == 1:
        return True
    return signs[0] in (">", ">=") and signs[1] in ("<", "<=") and bool(numbers[0] < numbers[1])


def _is_exclusion(operand: object) -> bool:
    if isinstance(operand, dict):
        return len(operand) == 1 and all(
            name in _EXCLUDED and all(map(_EXCLUDED[name], value if isinstance(value, list) and value else [value]))
            for name, value in operand.items()
        )
    if isinstance(operand, list):
        return bool(operand) and all(map(_is_value, operand))
    return _is_value(operand)


def _is_wildcard(operand: object) -> bool:
    return _is_text(operand) and "**" not in str(operand)


def _is_network(operand: object) -> bool:
    try:
        ip_network(str(operand), strict=False)
    except ValueError:
        return False
    return _is_text(operand)


_EXCLUDED = {"prefix": _is_affix, "suffix": _is_affix, "equals-ignore-case": _is_text, "wildcard": _is_wildcard}
_OPERATORS = {
    "prefix": _is_affix,
    "suffix": _is_affix,
    "equals-ignore-case": _is_text,
    "anything-but": _is_exclusion,
    "numeric": _is_range,
    "exists": lambda operand: isinstance(operand, bool),
    "cidr": _is_network,
    "wildcard": _is_wildcard,
}
