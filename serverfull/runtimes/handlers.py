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
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serverfull.contracts import annotations as kinds
from serverfull.contracts.signatures import EMPTY, annotations_of, innermost_handler
from serverfull.contracts.validation import adapter, event_decoder
from serverfull.domain.functions import Function
from serverfull.runtimes.marshal import MarshalFault

if TYPE_CHECKING:
    from serverfull.runtimes.context import LambdaContext


_SAYS_NOTHING = (EMPTY, Any, object)


@dataclasses.dataclass(frozen=True, slots=True)
class BoundHandler:
    """A handler, ready to be called.

    :param call: takes the event and the context, whatever the handler takes.
    :param is_async: ``call`` gives a coroutine that the runtime awaits.
    :param decode: turns the event from JSON into what the handler takes; raises
        `~serverfull.contracts.validation.EventInvalid`. None: nothing to do.
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
    handler, name = innermost_handler(function), function.handler_name
    _refuse_what_is_no_handler(handler, name)
    event, result = annotations_of(handler, name)
    decode = event_decoder(event, name)
    return BoundHandler(
        call=_caller(handler, _parameters_taken(handler, name)),
        is_async=_is(inspect.iscoroutinefunction, handler),
        decode=decode,
        encode=_result_encoder(result, name, infer=decode is not None and result in _SAYS_NOTHING),
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


# -------------------------------------------------------------------------------------------------------- serialisation


def _result_encoder(annotation: Any, name: str, *, infer: bool) -> Callable[[Any], Any] | None:
    """Make the function that turns results into plain values.

    :param infer: the handler takes a typed event and does not say what it returns: then models and dataclasses are
        serialised by what they are, since nothing else could be done with them.
    """
    if kinds.needs_serialising(annotation):
        return _serialiser(adapter(annotation, name))
    if not infer:
        return None
    by_its_type = _serialiser(adapter(Any, name))
    return lambda result: by_its_type(result) if kinds.is_record(type(result)) else result


def _serialiser(written_by: Any) -> Callable[[Any], Any]:
    core = importlib.import_module("pydantic_core")

    def encode(result: Any) -> Any:
        if isinstance(result, bytes):  # bytes are answered as they are, whatever is announced
            return result
        try:
            return written_by.dump_python(result, mode="json", warnings=False)
        except core.PydanticSerializationError as error:
            raise MarshalFault("Runtime.MarshalError", f"Unable to marshal response: {error}") from None

    return encode
