"""Prepares a handler once, so that a runtime can call it for every invocation without looking at it again.

Runtimes call `bind` when they make the environment of a function. What a handler may be:

* a ``def`` or ``async def``, a bound method, a ``functools.partial`` or an object with ``__call__``;
* of no parameter, of one (the event), or of two (the event and the context).

**Typed handlers.** Where the event's annotation says what the event looks like, the event is validated into it with
pydantic, and what the handler returns is serialised by its return annotation:

=================================================================== ====================================================
annotation of the event                                             what happens
=================================================================== ====================================================
pydantic model, dataclass, TypedDict, NamedTuple, Enum, Literal,    validated into it
``Annotated``, a builtin generic (``list[int]``), a class of
``datetime`` or ``uuid``, ``Decimal``, a union with one of these
``dict[str, Any]``, ``list[Any]``                                   only checked to be an object, or an array
none, ``Any``, ``object``, ``dict``, ``str``, ``int`` and other     the handler gets the event as JSON gives it, as on
bare classes, also those of libraries, and unions of them           AWS
=================================================================== ====================================================

The result goes through pydantic where its annotation has something that JSON does not know (a model, an Enum, a
``datetime``); ``dict[str, Any]``, ``list[int]`` or ``Decimal`` are written exactly as AWS's runtime client writes them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serverfull.domain.functions import Function
from serverfull.runtimes import annotations as kinds
from serverfull.runtimes.marshal import ErrorReport, MarshalFault

if TYPE_CHECKING:
    from serverfull.runtimes.context import LambdaContext

_MOST_PROBLEMS = 100
_OWN_CONVERSION = ("aws_lambda_powertools.middleware_factory", "aws_lambda_powertools.utilities")


class EventInvalid(Exception):
    """The event does not fit the annotation of the handler; the handler did not run.

    :param message: the field paths and what is wrong with each.
    """

    error_type = "ValidationError"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def report(self, request_id: str) -> ErrorReport:
        """Give what the log line and the error document are made of; there is no stack trace."""
        return ErrorReport(self.error_type, self.message, request_id)


@dataclasses.dataclass(frozen=True, slots=True)
class BoundHandler:
    """A handler, ready to be called.

    :param call: takes the event and the context, whatever the handler takes.
    :param is_async: ``call`` gives a coroutine that the runtime awaits.
    :param decode: turns the event from JSON into what the handler takes; raises `EventInvalid`. None: nothing to do.
    :param encode: turns the handler's result into what `marshal.encode_result` takes; raises `MarshalFault`. None:
        nothing to do.
    """

    call: Callable[[Any, LambdaContext], Any]
    is_async: bool
    decode: Callable[[Any], Any] | None = None
    encode: Callable[[Any], Any] | None = None


def bind(function: Function) -> BoundHandler:
    """Look at the handler of a function and prepare it.

    :raises TypeError: it cannot be a handler, or its annotations cannot be used; the message names the handler and says
        what to change.
    """
    handler = function.handler
    while isinstance(handler, Function):  # a Function around a Function
        handler = handler.handler
    name = function.handler_name
    if handler is None:
        raise TypeError("the Function has no handler")
    _refuse_what_is_no_handler(handler, name)
    typed = _typed_callable(handler)
    event, result = (_annotation_of_event(typed, name), _annotation_of_result(typed, name)) if typed else (Any, Any)
    decode = _event_decoder(event, name)
    return BoundHandler(
        call=_caller(handler, _parameters_taken(handler, name)),
        is_async=_is(inspect.iscoroutinefunction, handler),
        decode=decode,
        encode=_result_encoder(result, name, infer=decode is not None and result is inspect.Parameter.empty),
    )


# ----------------------------------------------------------------------------------------------------------- what it is


def _is(test: Callable[[Any], bool], handler: Any) -> bool:
    """Ask of a function, a partial of one, a method, or the ``__call__`` of an object."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return test(handler) or (not inspect.isroutine(handler) and test(type(handler).__call__))


def _refuse_what_is_no_handler(handler: Any, name: str) -> None:
    if inspect.isclass(handler):
        raise TypeError(f"handler {name} is a class: serve an instance of it, or one of its methods")
    if _is(inspect.isasyncgenfunction, handler) or _is(inspect.isgeneratorfunction, handler):
        raise TypeError(f"handler {name} is a generator: a handler returns its result, it does not yield it")


def _parameters_taken(handler: Any, name: str) -> int:
    """Say how many of event and context the handler takes."""
    try:
        parameters = inspect.signature(handler, follow_wrapped=False).parameters.values()
    except ValueError:  # written in C, without a signature
        return 2
    required = [p for p in parameters if p.default is p.empty]
    if missing := [p.name for p in required if p.kind is p.KEYWORD_ONLY]:
        raise TypeError(f"handler {name} needs the keyword argument {missing[0]!r}: give it a default")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed := [p for p in positional if p in required]) > 2:
        names = ", ".join(p.name for p in needed)
        raise TypeError(f"handler {name} needs {len(needed)} parameters ({names}): a handler gets event and context")
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return min(2, len(positional))
    wrapped = getattr(handler, "__wrapped__", None)
    # `def wrapper(*args, **kwargs)` around a handler: what is inside decides.
    return max(len(needed), _parameters_taken(wrapped, name)) if callable(wrapped) else 2


def _caller(handler: Any, count: int) -> Callable[[Any, LambdaContext], Any]:
    if count == 2:
        return typing.cast("Callable[[Any, LambdaContext], Any]", handler)
    if count == 1:
        return lambda event, _context: handler(event)
    return lambda _event, _context: handler()


# ------------------------------------------------------------------------------------------------------ its annotations


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
        return inspect.Parameter.empty
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


# ----------------------------------------------------------------------------------------------------------- validation


def _event_decoder(annotation: Any, name: str) -> Callable[[Any], Any] | None:
    if (container := kinds.plain_container(annotation)) is not None:
        return functools.partial(_check_container, container, _title(annotation))
    return _validator(_adapter(annotation, name), _title(annotation)) if kinds.describes(annotation) else None


def _check_container(container: type, title: str, event: Any) -> Any:
    # What pydantic would say, without importing it for the most common annotation of all.
    if not isinstance(event, container):
        kind = "an object" if container is dict else "a valid array"
        raise EventInvalid(f"1 validation error for {title}: event: Input should be {kind}")
    return event


def _adapter(annotation: Any, name: str) -> Any:
    pydantic = importlib.import_module("pydantic")
    try:
        return pydantic.TypeAdapter(kinds.for_pydantic(annotation))
    except (pydantic.errors.PydanticUserError, NameError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"handler {name}: pydantic cannot use the annotation {annotation!r}: {reason}") from None


def _title(annotation: Any) -> str:
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        return annotation.__name__
    return re.sub(r"(?:[\w<>]+\.)+", "", str(annotation))  # without the modules of the types


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
        raise EventInvalid(_problems(found, title)) from None

    return decode


def _problems(error: Any, title: str) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    shown = [f"{'.'.join(map(str, one['loc'])) or 'event'}: {one['msg']}" for one in found[:_MOST_PROBLEMS]]
    if len(found) > _MOST_PROBLEMS:
        shown.append(f"and {len(found) - _MOST_PROBLEMS} more")
    return f"{len(found)} validation error{'s' if len(found) != 1 else ''} for {title}: {'; '.join(shown)}"


# -------------------------------------------------------------------------------------------------------- serialisation


def _result_encoder(annotation: Any, name: str, *, infer: bool) -> Callable[[Any], Any] | None:
    """Make the function that turns results into plain values.

    :param infer: the handler takes a typed event and does not say what it returns: then models and dataclasses are
        serialised by what they are, since nothing else could be done with them.
    """
    if kinds.needs_serialising(annotation):
        return _serialiser(_adapter(annotation, name))
    if not infer:
        return None
    by_its_type = _serialiser(_adapter(Any, name))
    return lambda result: by_its_type(result) if kinds.is_record(type(result)) else result


def _serialiser(adapter: Any) -> Callable[[Any], Any]:
    core = importlib.import_module("pydantic_core")

    def encode(result: Any) -> Any:
        if isinstance(result, bytes):  # bytes are answered as they are, whatever is announced
            return result
        try:
            return adapter.dump_python(result, mode="json", warnings=False)
        except core.PydanticSerializationError as error:
            raise MarshalFault("Runtime.MarshalError", f"Unable to marshal response: {error}") from None

    return encode
