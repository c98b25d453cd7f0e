"""Finds the handler in the code of a deployed function, and says as AWS does why it cannot be found.

Called by `serverfull.runtimes.deployed` on a thread, as the function's invocation: the module's own code runs here,
sees the function's variables and writes to its log.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/python-handler.html#naming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serverfull.runtimes.error_reports import ErrorReport, handler_missing, init_fault

if TYPE_CHECKING:
    from serverfull.domain.functions import Handler
    from serverfull.runtimes.namespaces import CodeNamespace


class LoadFault(Exception):
    """The handler of a deployed function cannot be loaded."""

    def __init__(self, report: ErrorReport) -> None:
        super().__init__(report.message)
        self._report = report

    def report(self, request_id: str) -> ErrorReport:
        """Give the report for the invocation that needed the handler."""
        return self._report._replace(request_id=request_id)


def load_handler(namespace: CodeNamespace, name: str) -> Handler:
    """Import the module of a handler and give the handler.

    :param name: ``folder/module.attribute``.
    :raises LoadFault: there is none, or the module's own code failed.
    """
    module, dot, attribute = name.rpartition(".")
    if not dot or not module:
        text = f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
        raise LoadFault(ErrorReport("Runtime.MalformedHandlerName", text, ""))
    try:
        loaded = namespace.load(module.replace("/", "."))
    except Exception as error:  # whatever the module's own code raises
        raise LoadFault(init_fault(error, module)) from None
    handler: Any = getattr(loaded, attribute, None)
    if handler is None or not callable(handler):
        raise LoadFault(handler_missing(attribute, module))
    found: Handler = handler
    return found
