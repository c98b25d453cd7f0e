"""Which annotations of a handler count, whatever shape the handler has. Runtimes and contracts ask at start."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from typing import Any

from serverfull.domain.functions import Function, Handler

_OWN_CONVERSION = ("aws_lambda_powertools.middleware_factory", "aws_lambda_powertools.utilities")

EMPTY = inspect.Parameter.empty
"""Stands for an annotation that is not there, where that is something else than `Any`."""


def innermost_handler(function: Function) -> Handler:
    """Give the handler of a function, also of a Function around a Function, or around a ``staticmethod``.

    :raises TypeError: there is none.
    """
    handler = function.handler
    while isinstance(handler, (Function, staticmethod)):
        handler = handler.handler if isinstance(handler, Function) else handler.__func__
    if handler is None:
        raise TypeError("the Function has no handler")
    return handler


def annotations_of(handler: Any, name: str) -> tuple[Any, Any]:
    """Give the resolved annotations of the event and of the result; `EMPTY` where there is none.

    :param name: what messages call the handler.
    :raises TypeError: an annotation cannot be resolved; the message names it.
    """
    typed = _typed_callable(handler)
    return (_annotation_of_event(typed, name), _annotation_of_result(typed, name)) if typed else (Any, Any)


def _typed_callable(handler: Any) -> Any:
    """Find the function whose annotations count: behind partials, decorators and ``__call__``.

    None where there is none, or where a decorator of AWS Lambda Powertools makes the typed event by itself.
    """
    found = handler
    while True:
        if isinstance(found, functools.partial):
            found = found.func
        elif not inspect.isroutine(found) and callable(found):
            found = found.__call__
        elif str(getattr(found, "__globals__", {}).get("__name__")).startswith(_OWN_CONVERSION):
            return None
        elif hasattr(found, "__wrapped__"):
            found = found.__wrapped__
        else:
            return found if hasattr(found, "__annotations__") else None


def _annotation_of_event(typed: Any, name: str) -> Any:
    parameters = list(inspect.signature(typed).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return EMPTY
    return _resolved(typed, parameters[0].annotation, f"parameter {parameters[0].name!r}", name)


def _annotation_of_result(typed: Any, name: str) -> Any:
    return _resolved(typed, inspect.signature(typed).return_annotation, "the result", name)


def _resolved(typed: Any, annotation: Any, where: str, name: str) -> Any:
    """Resolve one annotation by itself: another one that only a type checker can see does no harm."""
    function = inspect.unwrap(getattr(typed, "__func__", typed))
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    enclosing = {n: cell.cell_contents for n, cell in zip(names, cells, strict=False) if _is_filled(cell)}
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, getattr(function, "__globals__", {}), enclosing, include_extras=True)["it"]
    except NameError as error:
        raise TypeError(
            f"handler {name}: the annotation {annotation!r} of {where} cannot be resolved: {error}. "
            "Import the type at run time, not only under TYPE_CHECKING"
        ) from None
    except (SyntaxError, TypeError):
        return Any  # a note to the reader, no type


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading it is the test
    except ValueError:
        return False
    return True
