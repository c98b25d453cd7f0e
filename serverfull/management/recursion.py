"""Whether a function that calls itself in circles is stopped; `serverfull.invocation.invoker` looks for circles.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import FUNCTIONS

if TYPE_CHECKING:
    from types_boto3_lambda.type_defs import (
        GetFunctionRecursionConfigRequestTypeDef,
        PutFunctionRecursionConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Response
    from serverfull.management.resolution import FunctionResolver


class RecursionConfigs:
    """The operations on recursive loop detection."""

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "GetFunctionRecursionConfig": self.get,
            "PutFunctionRecursionConfig": self.put,
        }

    async def get(self, request: GetFunctionRecursionConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Tell what is done about circles: ``Terminate``, the default, or ``Allow``.

        :raises NotFoundError: there is no such function.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionRecursionConfig.html
        """
        reference = self._resolver.reference(request, scope)
        registered = await self._resolver.registered(reference.name, scope)
        if registered is not None:
            return {"RecursiveLoop": registered.recursive_loop}
        function = await self._state.read(
            scope.partition, lambda records: self._resolver.function(records, reference, scope)
        )
        return {"RecursiveLoop": function.recursive_loop}

    async def put(self, request: PutFunctionRecursionConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Say what is to be done about circles.

        :raises NotFoundError: there is no such function.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionRecursionConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        wanted = request["RecursiveLoop"]

        def work(records: Records) -> None:
            function = self._resolver.function(records, reference, scope)
            records.replace(FUNCTIONS, replace(function, recursive_loop=wanted))

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return {"RecursiveLoop": wanted}
