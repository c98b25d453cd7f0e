"""Method, path and query → operation, from the HTTP bindings of the model.

Paths are matched raw and percent-decoded label by label afterwards, so that ``%2F`` in a name stays in the name. Built
once per model; matching changes nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from serverfull.domain.names import shown
from serverfull.errors import MalformedRequest, MethodNotAllowed, UnknownOperation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from serverfull.api.model import Operation

_LABEL = re.compile(r"\{(\w+)(\+?)\}")


@dataclass(frozen=True, slots=True)
class MatchedOperation:
    """An operation and the decoded labels of its path, by their names in the template."""

    operation: Operation
    uri_params: Mapping[str, str]

    @property
    def operation_name(self) -> str:
        """The operation's name in the AWS model."""
        return self.operation.name


class Router:
    """Finds the operation of a request."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        by_pattern: dict[str, list[Operation]] = defaultdict(list)
        for operation in operations:
            by_pattern[_pattern_of(operation.path)].append(operation)
        # The first segment is a date that few paths share; a greedy label may hide any number of segments.
        self._paths: dict[tuple[str, int], list[_Path]] = defaultdict(list)
        self._greedy: list[_Path] = []
        for pattern, bindings in by_pattern.items():
            path = _Path(re.compile(pattern), bindings)
            if "+}" in bindings[0].path:
                self._greedy.append(path)
            else:
                self._paths[_index_of(bindings[0].path)].append(path)

    def match(self, method: str, raw_path: str, query: Mapping[str, Sequence[str]]) -> MatchedOperation:
        """Find the operation of a request.

        :param raw_path: the path as it came over the wire, percent-encoded, without the query.
        :param query: the decoded query parameters.
        :raises UnknownOperation: no operation has this path.
        :raises MethodNotAllowed: operations have it, with other methods.
        :raises MalformedRequest: a label of the path is not UTF-8.
        """
        # Older models and some clients end paths with a slash, and AWS takes them.
        trimmed = raw_path.removesuffix("/")
        allowed: set[str] = set()
        for path in (*self._paths.get(_index_of(trimmed), ()), *self._greedy):
            found = path.regex.fullmatch(trimmed)
            if found is None:
                continue
            operation = path.pick(method, query)
            if operation is not None:
                return MatchedOperation(operation, _decoded(operation, found))
            allowed |= path.methods(query)
        if allowed:
            raise MethodNotAllowed(method, shown(raw_path), tuple(sorted(allowed)))
        raise UnknownOperation(f"No operation of the Lambda API has the path {shown(raw_path)}")


class _Path:
    """A path template and the operations that are bound to it."""

    def __init__(self, regex: re.Pattern[str], operations: Iterable[Operation]) -> None:
        self.regex = regex
        # The binding that asks for more of the query is asked first.
        self._operations = sorted(operations, key=lambda operation: -len(operation.literals))

    def pick(self, method: str, query: Mapping[str, Sequence[str]]) -> Operation | None:
        for operation in self._operations:
            if operation.method == method and _has_literals(query, operation.literals):
                return operation
        return None

    def methods(self, query: Mapping[str, Sequence[str]]) -> set[str]:
        return {o.method for o in self._operations if _has_literals(query, o.literals)}


def _pattern_of(template: str) -> str:
    pattern, end = "", 0
    for label in _LABEL.finditer(template):
        pattern += re.escape(template[end : label.start()]) + ("(.+)" if label.group(2) else "([^/]+)")
        end = label.end()
    return pattern + re.escape(template[end:].removesuffix("/"))


def _index_of(path: str) -> tuple[str, int]:
    segments = path.removesuffix("/").split("/", 2)
    return (segments[1] if len(segments) > 1 else "", path.removesuffix("/").count("/"))


def _has_literals(query: Mapping[str, Sequence[str]], literals: Mapping[str, str]) -> bool:
    return all(value in query.get(name, ()) for name, value in literals.items())


def _decoded(operation: Operation, found: re.Match[str]) -> dict[str, str]:
    names = [label.group(1) for label in _LABEL.finditer(operation.path)]
    try:
        return {
            name: unquote_to_bytes(text).decode() if "%" in text else text
            for name, text in zip(names, found.groups(), strict=True)
        }
    except UnicodeDecodeError:
        raise MalformedRequest("The path holds percent-encoded bytes that are not UTF-8") from None
