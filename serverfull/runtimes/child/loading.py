"""Finds the handler in the function's code, and says as AWS does why it cannot be found.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/python-handler.html#naming
"""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any

from .reports import Fault, text_of

CO_COROUTINE = 0x80


def load_handler(name: str) -> Any:
    """Import the module of a handler and give the handler.

    :param name: ``folder/module.attribute``.
    :raises Fault: there is none, or its module cannot be imported or compiled. Other exceptions of the module's own
        code come as they are.
    """
    try:
        module_name, attribute = name.rsplit(".", 1)
    except ValueError as error:
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{name}': {error}") from None
    try:
        if module_name.split(".")[0] in sys.builtin_module_names:
            message = f"Cannot use built-in module {module_name} as a handler module"
            raise Fault("Runtime.BuiltInModuleConflict", message)
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {text_of(error)}"
        raise Fault("Runtime.ImportModuleError", message) from None
    except SyntaxError as error:
        place = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        message = f"Syntax error in module '{module_name}': {text_of(error)}"
        raise Fault("Runtime.UserCodeSyntaxError", message, [place]) from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        message = f"Handler '{attribute}' missing on module '{module_name}'"
        raise Fault("Runtime.HandlerNotFound", message) from None


def is_async(handler: Any) -> bool:
    """Say whether a function, a partial of one, a method, or the ``__call__`` of an object is an ``async def``."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    code = getattr(handler, "__code__", None)
    if code is None and callable(handler):
        code = getattr(type(handler).__call__, "__code__", None)
    return code is not None and bool(getattr(code, "co_flags", 0) & CO_COROUTINE)
