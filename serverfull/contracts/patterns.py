"""Text that matches a regular expression: the shortest that is easily found, or a random one.

The tree comes from the parser of the standard library, which is not part of its documented interface; it has had this
form since Python 3.11, and `tests/contracts/test_patterns.py` runs on every version that we support. pydantic's
expressions are Rust's, so what is found is only a proposal: whoever calls this validates it.
"""

from __future__ import annotations

import importlib
import random
import re
from typing import Any

from serverfull.contracts.ranges import NothingFits

_ORDINARY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_ .:/@+,;!#$%&'()*<=>?[]^`{|}~\"\\\n\t"
_MORE = 4
_ATTEMPTS = 60


def matching(pattern: str, least: int, most: int | None, rng: random.Random | None) -> str:
    """Give a text in which the pattern is found.

    :param least: how many characters at least.
    :param most: how many at most; None: as many as needed.
    :raises NothingFits: none was found; the message has the pattern.
    """
    try:
        tree: Any = importlib.import_module("re._parser").parse(pattern.replace(r"\z", r"\Z"))
        search = re.compile(pattern.replace(r"\z", r"\Z")).search
    except re.error as error:
        raise NothingFits(f"the pattern {pattern!r} cannot be read: {error}") from None
    for text in _proposals(tree, least, rng):
        if len(text) >= least and (most is None or len(text) <= most) and search(text):
            return str(text)
    raise NothingFits(f"no text of the allowed length was found for the pattern {pattern!r}")


def _proposals(tree: Any, least: int, rng: random.Random | None) -> Any:
    """Give texts to try: the shortest, then random ones with longer and longer repeats."""
    if rng is None:
        yield from ("", _Writer(None, 0).write(tree), "a" * least)
        rng = random.Random(0)  # noqa: S311 - answers, no secrets
    for attempt in range(_ATTEMPTS):
        text = _Writer(rng, max(_MORE, least) if attempt % 2 else _MORE).write(tree)
        yield text
        yield text + "a" * (least - len(text))


class _Writer:
    """Writes one text along the tree.

    :param rng: None writes the first alternative, the first character of each set, and the fewest repeats.
    :param more: how many repeats above the fewest at most.
    """

    def __init__(self, rng: random.Random | None, more: int) -> None:
        self._rng = rng
        self._more = more
        self._groups: dict[int, str] = {}

    def write(self, tree: Any) -> str:
        return "".join(self._one(str(kind), argument) for kind, argument in tree)

    def _one(self, kind: str, argument: Any) -> str:
        match kind:
            case "LITERAL":
                return chr(argument)
            case "NOT_LITERAL":
                return str(self._choice([c for c in _ORDINARY if ord(c) != argument]))
            case "ANY":
                return str(self._choice(_ORDINARY[:36]))
            case "IN":
                return str(self._choice(_members(argument)))
            case "BRANCH":
                return self.write(self._choice(argument[1]))
            case "SUBPATTERN":
                return self._group(argument[0], argument[3])
            case "ATOMIC_GROUP":
                return self.write(argument)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                return self._repeat(*argument)
            case "GROUPREF":
                return self._groups.get(argument, "")
            case _:  # AT, ASSERT, ASSERT_NOT and what is rare: it writes nothing, and the search has the last word
                return ""

    def _group(self, number: int | None, tree: Any) -> str:
        text = self.write(tree)
        if number is not None:
            self._groups[number] = text
        return text

    def _repeat(self, fewest: int, most: int, tree: Any) -> str:
        count = fewest
        if self._rng is not None:
            count = self._rng.randint(fewest, min(int(most), fewest + self._more))
        return "".join(self.write(tree) for _ in range(count))

    def _choice(self, options: Any) -> Any:
        if not options:
            raise NothingFits("a set of characters in the pattern is empty")
        return options[0] if self._rng is None else self._rng.choice(options)


def _members(items: Any) -> list[str]:
    negated = bool(items) and str(items[0][0]) == "NEGATE"
    if negated:
        return [c for c in _ORDINARY if not any(_is_in(item, c) for item in items[1:])]
    named = [chr(item[1]) for item in items if str(item[0]) == "LITERAL"]
    ranges = [item[1] for item in items if str(item[0]) == "RANGE"]
    named += [chr(code) for low, high in ranges for code in range(low, min(high, low + 100) + 1)]
    rest = [c for c in _ORDINARY if c not in named and any(_is_in(item, c) for item in items)]
    return named + rest


def _is_in(item: Any, character: str) -> bool:
    kind, argument = str(item[0]), item[1]
    if kind == "LITERAL":
        return bool(ord(character) == argument)
    if kind == "RANGE":
        low, high = argument
        return bool(low <= ord(character) <= high)
    return kind == "CATEGORY" and bool(_CATEGORIES[str(argument)].match(character))


_CATEGORIES = {
    "CATEGORY_DIGIT": re.compile(r"\d"),
    "CATEGORY_NOT_DIGIT": re.compile(r"\D"),
    "CATEGORY_WORD": re.compile(r"\w"),
    "CATEGORY_NOT_WORD": re.compile(r"\W"),
    "CATEGORY_SPACE": re.compile(r"\s"),
    "CATEGORY_NOT_SPACE": re.compile(r"\S"),
}
