"""Durable executions: functions that go on where they stopped. This host does not have them.

Each of the operations is refused by its name. Nothing is kept, so that nothing looks as if it would go on.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/durable-functions.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NoReturn

from serverfull.errors import UnsupportedOperation

if TYPE_CHECKING:
    from serverfull.domain.names import RequestScope
    from serverfull.management.operations import Operations, Request

OPERATIONS = (
    "CheckpointDurableExecution",
    "DeleteDurableExecution",
    "GetDurableExecution",
    "GetDurableExecutionHistory",
    "GetDurableExecutionState",
    "ListDurableExecutionsByFunction",
    "PauseDurableExecution",
    "ResumeDurableExecution",
    "SendDurableExecutionCallbackFailure",
    "SendDurableExecutionCallbackHeartbeat",
    "SendDurableExecutionCallbackSuccess",
    "StopDurableExecution",
)

HINT = "Durable executions are not available in this version of serverfull."


class DurableExecutions:
    """The operations on durable executions."""

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {name: partial(self.refuse, name) for name in OPERATIONS}

    async def refuse(self, operation: str, request: Request, scope: RequestScope) -> NoReturn:
        """Refuse an operation.

        :param operation: its name in the AWS model.
        :raises UnsupportedOperation: always.
        """
        raise UnsupportedOperation(operation, HINT)
