"""Where mock mode takes its answers from. `MockingFetcher` asks once for each function, at start as a rule.

An answer is what a real call would be answered with, as JSON has it: it fits the annotation of the result.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.contracts.validation import ResultInvalid
from serverfull.domain.json_functions import loads
from serverfull.errors import ConfigurationError

if TYPE_CHECKING:
    from serverfull.config import MockSettings
    from serverfull.contracts.contract import Contract

Answer: TypeAlias = Callable[[Any], Any]
"""Gives the result for an event, which comes as the handler would get it; ``def`` or ``async def``."""


class MockAnswers(ABC):
    """A source of answers. Implement `answer` to write one of your own."""

    @abstractmethod
    def answer(self, name: str, contract: Contract) -> Answer:
        """Give what answers the calls of a function, with results as JSON has them.

        :param contract: what the function takes and gives back.
        :raises ConfigurationError: an answer that is written down cannot be used; the message says where it is.
        :raises TypeError: no answer can be made for such a result; the message says why.
        """

    def remarks(self, names: Collection[str]) -> Iterator[str]:
        """Say what the operator should know before these functions are mocked; the host logs it at start."""
        yield from ()


class ZeroAnswers(MockAnswers):
    """Answers with the zero value of the result: ``""``, 0, false, empty lists, models of these, and null for none."""

    def answer(self, name: str, contract: Contract) -> Answer:
        """Give the same value for every event."""
        value = contract.answers.zero()
        return lambda _event: value


class RandomAnswers(MockAnswers):
    """Answers with random values that are valid results.

    :param seed: makes runs repeatable: each function has a sequence of answers of its own, which depends on the seed
        and the function's name alone.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def answer(self, name: str, contract: Contract) -> Answer:
        """Give a new value for each event."""
        make = contract.answers.random
        make(self._source(name))  # here and now it turns out whether there is a value that fits
        source = self._source(name)
        return lambda _event: make(source)

    def _source(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}:{name}")  # noqa: S311 - answers, no secrets


class StaticAnswers(MockAnswers):
    """Answers with what is written in files.

    :param path: a file with a JSON object that has an answer under each function's name, or a folder with a file
        ``NAME.json`` for each function, which holds the answer.
    :param others: answers for functions that have none there; None: their zero values.
    :raises ConfigurationError: a file cannot be read, or is not JSON.
    """

    def __init__(self, path: str | Path, others: MockAnswers | None = None) -> None:
        self._path = Path(path)
        self._others = others or ZeroAnswers()
        self._answers = _read_folder(self._path) if self._path.is_dir() else _read_file(self._path)

    def answer(self, name: str, contract: Contract) -> Answer:
        """Give the answer that is written down, as it is written; its text as bytes where the result is bytes."""
        if name not in self._answers:
            return self._others.answer(name, contract)
        where, value = self._answers[name]
        try:
            answer = contract.validate_result(value)
        except ResultInvalid as unfit:
            raise ConfigurationError(f"{where}: the answer does not fit the result of {name!r}: {unfit}") from None
        return lambda _event: answer

    def remarks(self, names: Collection[str]) -> Iterator[str]:
        """Name functions without an answer, and answers without a function."""
        if missing := sorted(set(names) - set(self._answers)):
            yield f"{self._path} has no answer for {', '.join(missing)}: zero values are answered"
        if unknown := sorted(set(self._answers) - set(names)):
            yield f"{self._path} has answers for functions that are not there: {', '.join(unknown)}"


def answers_of(settings: MockSettings) -> MockAnswers:
    """Make the source of answers that the settings name.

    :raises ConfigurationError: it is a path that cannot be used.
    """
    if settings.answers == "zero":
        return ZeroAnswers()
    return RandomAnswers(settings.seed) if settings.answers == "random" else StaticAnswers(settings.answers)


_Written: TypeAlias = Mapping[str, tuple[str, Any]]
"""By function: where the answer is written, and the answer."""


def _read_file(path: Path) -> _Written:
    answers = _read_json(path)
    if not isinstance(answers, dict):
        raise ConfigurationError(f"{path}: it takes a JSON object with an answer under each function's name")
    return {name: (f"{path}, {name!r}", answer) for name, answer in answers.items()}


def _read_folder(folder: Path) -> _Written:
    answers = {path.stem: (str(path), _read_json(path)) for path in sorted(folder.glob("*.json"))}
    if not answers:
        raise ConfigurationError(f"{folder}: there is no file NAME.json in it")
    return answers


def _read_json(path: Path) -> Any:
    try:
        return loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except OSError as failure:
        raise ConfigurationError(
            f"the answers of mock mode cannot be read from {path}: {failure.strerror}. "
            "They are 'zero', 'random', or the path of a file or folder."
        ) from None
    except (ValueError, RecursionError) as wrong:
        raise ConfigurationError(f"{path} is not JSON: {wrong}") from None


def _no_constant(literal: str) -> Any:
    raise ValueError(f"{literal} is not allowed in JSON")
