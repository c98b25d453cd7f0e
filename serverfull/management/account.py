"""GetAccountSettings: what an account may use in a region, and what it uses.

Everything that touches state runs in a transaction on the store's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfull.domain.deployed import FUNCTIONS, VERSIONS
from serverfull.domain.layers import LAYER_VERSIONS, layer_key
from serverfull.domain.limits import UNZIPPED_PACKAGE_BYTES
from serverfull.errors import CodeStorageExceeded, InvalidParameterValue

if TYPE_CHECKING:
    from types_boto3_lambda.type_defs import AccountLimitTypeDef, AccountUsageTypeDef

    from serverfull.domain.concurrency import AccountLimits
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Fetcher, Records, StateStore
    from serverfull.management.operations import Operations, Request, Response


class Account:
    """The operation on an account.

    :param registered: the operator's own functions, which every account has.
    """

    def __init__(self, state: StateStore, registered: Fetcher, limits: AccountLimits) -> None:
        self._state = state
        self._registered = registered
        self._limits = limits

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {"GetAccountSettings": self.get_settings}

    async def get_settings(self, request: Request, scope: RequestScope) -> Response:
        """Give the limits of an account, and how much of them is used.

        The operator's own functions count, once where a deployed one has the same name; they have no packages.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetAccountSettings.html
        """
        registered = set(await self._registered.at(scope.partition).list())
        limits = self._limits

        def work(records: Records) -> Response:
            functions = records.list(FUNCTIONS)
            reserved = sum(function.reserved_concurrency or 0 for function in functions)
            limit: AccountLimitTypeDef = {
                "TotalCodeSize": limits.total_code_size,
                "CodeSizeUnzipped": limits.code_size_unzipped,
                "CodeSizeZipped": limits.code_size_zipped,
                "ConcurrentExecutions": limits.concurrent_executions,
                "UnreservedConcurrentExecutions": max(0, limits.concurrent_executions - reserved),
            }
            usage: AccountUsageTypeDef = {
                "TotalCodeSize": code_size(records),
                "FunctionCount": len(registered.union(function.name for function in functions)),
            }
            return {"AccountLimit": limit, "AccountUsage": usage}

        return await self._state.read(scope.partition, work)


def code_size(records: Records) -> int:
    """Sum up the packages of all versions of functions and layers, in bytes; the same package counts for each."""
    return records.total(VERSIONS, "code_size") + records.total(LAYER_VERSIONS, "code_size")


def check_unzipped_size(records: Records, version: FunctionVersion) -> None:
    """Refuse code that is too large with its layers, unpacked.

    :raises InvalidParameterValue: it is.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    """
    layers = [records.get(LAYER_VERSIONS, *layer_key(layer["Arn"])) for layer in version.settings.get("Layers", ())]
    size = version.unzipped_size + sum(layer.unzipped_size for layer in layers if layer is not None)
    if size > UNZIPPED_PACKAGE_BYTES:
        raise InvalidParameterValue(
            f"Function code combined with layers exceeds the maximum allowed size of {UNZIPPED_PACKAGE_BYTES} bytes. "
            f"The actual size is {size} bytes."
        )


def check_code_storage(records: Records, added: int, limits: AccountLimits) -> None:
    """Refuse a package for which the account has no room.

    :param added: bytes of the package, less those of the one that it replaces: what takes no more room always has some.
    :raises CodeStorageExceeded: there is none.
    """
    if added > 0 and code_size(records) + added > limits.total_code_size:
        raise CodeStorageExceeded("Code storage limit exceeded.")
