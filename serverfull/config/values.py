"""What a setting may be, and how its text in the environment or in a file is read.

Pure functions over the annotations of the settings dataclasses; the loader and the settings reference call them.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|μs|ns)"


class Range:
    """The numbers that a setting takes."""

    def __init__(self, *, above: float | None = None, least: float | None = None, most: float | None = None) -> None:
        self.above = above
        self.least = least
        self.most = most

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}"
        low = f"above {self.above:g}" if self.above is not None else f"of at least {self.least or 0:g}"
        return low if self.most is None else f"{low} and at most {self.most:g}"


class Pattern:
    """The text that a setting takes.

    :param regex: what the whole text must match.
    :param words: the same for a reader.
    """

    def __init__(self, regex: str, words: str) -> None:
        self.regex = regex
        self.words = words

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.regex, value) is not None


class Signal:
    """The numbers of signals that a process can handle."""

    def __contains__(self, value: int) -> bool:
        import signal

        return value in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

    def __str__(self) -> str:
        return "of signals that can be handled"


Rule: TypeAlias = Range | Pattern | Signal


def parts(kind: Any) -> tuple[Any, tuple[Rule, ...]]:
    """Split an annotation into the plain type and what restricts it."""
    if get_origin(kind) is Annotated:
        plain, *rules = get_args(kind)
        return plain, tuple(rule for rule in rules if isinstance(rule, Rule))
    return kind, ()


def expected(kind: Any) -> str:
    """Say in words what a setting of this type takes."""
    plain, rules = parts(kind)
    if get_origin(plain) is tuple:
        return f"a list of {_plural(get_args(plain)[0])}, separated by commas or spaces, or as JSON"
    if get_origin(plain) is Literal:
        choices = [str(choice) for choice in get_args(plain)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if plain is str and rules:
        return _words(rules)
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a duration such as 250ms, 5s or 1m30s, or a number of seconds,",
        str: "text",
    }
    return " ".join([names[plain], *map(str, rules)]).rstrip(",")


def _plural(kind: Any) -> str:
    plain, rules = parts(kind)
    if get_origin(plain) is Literal:
        return " or ".join(map(str, get_args(plain)))
    if plain is str and rules:
        return _words(rules)
    return " ".join(["whole numbers" if plain is int else "texts", *map(str, rules)])


def _words(rules: tuple[Rule, ...]) -> str:
    return " and ".join(rule.words for rule in rules if isinstance(rule, Pattern))


def duration(text: str) -> float:
    """Read ``5s``, ``250ms`` or ``1m30s`` (as Go writes them) or a plain number of seconds; gives seconds.

    :raises ValueError: the text is neither.
    """
    pieces = re.findall(_PART, text)
    if pieces and "".join(number + unit for number, unit in pieces) == text:
        return math.fsum(float(number) * _UNITS[unit] for number, unit in pieces)
    return float(text)


def read(kind: Any, value: object) -> object:
    """Turn the text of a value into what its type takes; what is no text, or no such text, stays as it is.

    :raises ValueError: the text cannot be read.
    """
    plain, _ = parts(kind)
    if isinstance(value, bool) and plain is not bool:
        raise ValueError("a switch is no number and no text")
    if not isinstance(value, str):
        return value
    text = value.strip()
    if plain is float:
        return duration(text)
    if get_origin(plain) is tuple:
        return _items(text)
    if get_origin(plain) is Literal:
        return next((choice for choice in get_args(plain) if str(choice).casefold() == text.casefold()), value)
    return text


def _items(text: str) -> object:
    if text.startswith("["):
        import json

        return json.loads(text)
    return [item for item in re.split(r"[,\s]+", text) if item]


def fits(kind: Any, value: object) -> bool:
    """Whether a value that has its final type already is one that the setting takes."""
    plain, rules = parts(kind)
    if get_origin(plain) is tuple:
        return isinstance(value, tuple) and all(fits(get_args(plain)[0], item) for item in value)
    if get_origin(plain) is Literal:
        return value in get_args(plain)
    if isinstance(value, bool) and plain is not bool:
        return False
    takes = (int, float) if plain is float else plain
    return isinstance(value, takes) and all(value in rule for rule in rules)  # type: ignore[operator]
