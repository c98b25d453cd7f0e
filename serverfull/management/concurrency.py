"""Reserved and provisioned concurrency of functions.

Everything that touches state runs in transactions on the store's thread, so two reservations never take the same
executions. Environments are not made ready here: whoever does hears of the change, and says how far that is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.concurrency import PROVISIONED_CONCURRENCY, ProvisionedConcurrency
from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS
from serverfull.domain.names import LATEST, function_arn, function_not_found
from serverfull.domain.readiness import NOT_WITH_SNAP_START, Readiness
from serverfull.errors import (
    InvalidParameterValue,
    ProvisionedConcurrencyConfigNotFound,
    ResourceConflict,
    ResourceNotFound,
)
from serverfull.management.paging import read_page
from serverfull.management.resolution import version_number
from serverfull.management.stamps import timestamp_seconds
from serverfull.management.validation import check_unqualified

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from types_boto3_lambda.type_defs import (
        DeleteFunctionConcurrencyRequestTypeDef,
        DeleteProvisionedConcurrencyConfigRequestTypeDef,
        GetFunctionConcurrencyRequestTypeDef,
        GetProvisionedConcurrencyConfigRequestTypeDef,
        ListProvisionedConcurrencyConfigsRequestTypeDef,
        ProvisionedConcurrencyConfigListItemTypeDef,
        PutFunctionConcurrencyRequestTypeDef,
        PutProvisionedConcurrencyConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.concurrency import AccountLimits
    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.domain.records import Partition
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Response
    from serverfull.management.resolution import FunctionResolver


FindReadiness: TypeAlias = "Callable[[Partition, ProvisionedConcurrency], Readiness]"
"""Says how far the environments of a configuration are."""


class Concurrency:
    """The operations on reserved and provisioned concurrency.

    :param changes: is told of each change.
    :param limits: the executions that an account has, and how many of them cannot be reserved.
    :param readiness: says how far provisioned concurrency is.
    """

    def __init__(
        self,
        state: StateStore,
        resolver: FunctionResolver,
        changes: Changes,
        *,
        limits: AccountLimits,
        readiness: FindReadiness,
    ) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes
        self._limits = limits
        self._readiness = readiness

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "PutFunctionConcurrency": self.put_reserved,
            "GetFunctionConcurrency": self.get_reserved,
            "DeleteFunctionConcurrency": self.delete_reserved,
            "PutProvisionedConcurrencyConfig": self.put_provisioned,
            "GetProvisionedConcurrencyConfig": self.get_provisioned,
            "DeleteProvisionedConcurrencyConfig": self.delete_provisioned,
            "ListProvisionedConcurrencyConfigs": self.list_provisioned,
        }

    async def put_reserved(self, request: PutFunctionConcurrencyRequestTypeDef, scope: RequestScope) -> Response:
        """Reserve executions for a function, which are also the most that it gets. What runs goes on.

        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the other functions would have too few executions left, the function has more
            provisioned, or the name has a qualifier.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionConcurrency.html
        """
        reference = await self._resolver.writable(request, scope)
        check_unqualified(reference)
        executions = request["ReservedConcurrentExecutions"]

        def work(records: Records) -> None:
            function = records.get(FUNCTIONS, reference.name)
            if function is None:
                raise function_not_found(reference.name, scope.account, scope.region, LATEST)
            self._check_left(records, function.name, executions, "ReservedConcurrentExecutions")
            provisioned = _provisioned(records, function.name)
            if provisioned > executions:
                raise InvalidParameterValue(
                    f" ReservedConcurrentExecutions  {executions} should not be lower than function's total "
                    f"provisioned concurrency [{provisioned}]."
                )
            records.replace(FUNCTIONS, replace(function, reserved_concurrency=executions))

        await self._write(reference, scope, work)
        return {"ReservedConcurrentExecutions": executions}

    async def get_reserved(self, request: GetFunctionConcurrencyRequestTypeDef, scope: RequestScope) -> Response:
        """Give the reservation of a function; of one of the operator's own, the most that it gets.

        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the name has a qualifier.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConcurrency.html
        """
        reference = self._resolver.reference(request, scope)
        check_unqualified(reference)
        registered = await self._resolver.registered(reference.name, scope)
        if registered is not None:
            return {"ReservedConcurrentExecutions": registered.max_concurrency}
        function = await self._state.read(
            scope.partition, lambda records: self._resolver.function(records, reference, scope)
        )
        return {"ReservedConcurrentExecutions": function.reserved_concurrency}

    async def delete_reserved(self, request: DeleteFunctionConcurrencyRequestTypeDef, scope: RequestScope) -> Response:
        """Give up the reservation of a function; that it has none is fine.

        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the name has a qualifier.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionConcurrency.html
        """
        reference = await self._resolver.writable(request, scope)
        check_unqualified(reference)

        def work(records: Records) -> None:
            function = self._resolver.function(records, reference, scope)
            records.replace(FUNCTIONS, replace(function, reserved_concurrency=None))

        await self._write(reference, scope, work)
        return {}

    async def put_provisioned(
        self, request: PutProvisionedConcurrencyConfigRequestTypeDef, scope: RequestScope
    ) -> ProvisionedConcurrencyConfigListItemTypeDef:
        """Ask for environments that are ready before they are needed.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias.
        :raises ResourceConflict: the alias's version, or an alias of the version, has provisioned concurrency already.
        :raises InvalidParameterValue: it is for ``$LATEST``, an alias with weights or a version with SnapStart, or more
            than the function or the account has.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutProvisionedConcurrencyConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        qualifier = _published(
            reference, "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        )
        config = ProvisionedConcurrency(
            function=reference.name,
            qualifier=qualifier,
            requested=request["ProvisionedConcurrentExecutions"],
            last_modified=timestamp_seconds(),
        )

        def work(records: Records) -> None:
            _check_qualifier(records, reference, scope)
            _check_conflicts(records, config)
            _check_snap_start(records, config)
            self._check_room(records, config)
            records.delete(PROVISIONED_CONCURRENCY, config.function, config.qualifier)
            records.insert(PROVISIONED_CONCURRENCY, config)

        ready = min(self._readiness(scope.partition, config).ready, config.requested)
        await self._write(reference, scope, work)
        return {**_described(config, Readiness(config.requested, ready)), "Status": "IN_PROGRESS"}

    async def get_provisioned(
        self, request: GetProvisionedConcurrencyConfigRequestTypeDef, scope: RequestScope
    ) -> ProvisionedConcurrencyConfigListItemTypeDef:
        """Give the provisioned concurrency of a version or alias.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias.
        :raises ProvisionedConcurrencyConfigNotFound: it has none.
        :raises InvalidParameterValue: it is for ``$LATEST``.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetProvisionedConcurrencyConfig.html
        """
        reference = self._resolver.reference(request, scope)
        qualifier = _published(reference)

        def work(records: Records) -> ProvisionedConcurrency:
            _check_qualifier(records, reference, scope)
            found = records.get(PROVISIONED_CONCURRENCY, reference.name, qualifier)
            if found is None:
                raise ProvisionedConcurrencyConfigNotFound
            return found

        config = await self._state.read(scope.partition, work)
        return _described(config, self._readiness(scope.partition, config))

    async def delete_provisioned(
        self, request: DeleteProvisionedConcurrencyConfigRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Give up the provisioned concurrency of a version or alias; that it has none is fine.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias.
        :raises InvalidParameterValue: it is for ``$LATEST``.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteProvisionedConcurrencyConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        qualifier = _published(reference)

        def work(records: Records) -> None:
            _check_qualifier(records, reference, scope)
            records.delete(PROVISIONED_CONCURRENCY, reference.name, qualifier)

        await self._write(reference, scope, work)
        return {}

    async def list_provisioned(
        self, request: ListProvisionedConcurrencyConfigsRequestTypeDef, scope: RequestScope
    ) -> Response:
        """List the provisioned concurrency of a function's versions and aliases.

        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListProvisionedConcurrencyConfigs.html
        """
        reference = self._resolver.reference(request, scope)
        page = read_page(request, str)
        if await self._resolver.registered(reference.name, scope) is not None:
            return {"ProvisionedConcurrencyConfigs": []}
        after = None if page.after is None else (reference.name, *page.after)

        def work(records: Records) -> Sequence[ProvisionedConcurrency]:
            self._resolver.function(records, reference, scope)
            return records.list(PROVISIONED_CONCURRENCY, reference.name, after=after, limit=page.limit)

        cut = page.cut(await self._state.read(scope.partition, work), lambda config: (config.qualifier,))
        listed = [
            {
                "FunctionArn": function_arn(config.function, scope.account, scope.region, config.qualifier),
                **_described(config, self._readiness(scope.partition, config)),
            }
            for config in cut.items
        ]
        return {"ProvisionedConcurrencyConfigs": listed, "NextMarker": cut.next_marker}

    async def _write(self, reference: FunctionReference, scope: RequestScope, work: Callable[[Records], None]) -> None:
        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))

    def _check_room(self, records: Records, config: ProvisionedConcurrency) -> None:
        """Refuse more provisioned concurrency than there is for the function to use."""
        function = records.get(FUNCTIONS, config.function)
        others = _provisioned(records, config.function, config.qualifier)
        reserved = function.reserved_concurrency if function else None
        if reserved is not None:
            if others + config.requested > reserved:
                raise InvalidParameterValue(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution "
                    "for function"
                )
            return
        if config.requested > self._limits.concurrent_executions:
            raise InvalidParameterValue(
                "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency "
                f"[{self._limits.concurrent_executions}]."
            )
        self._check_left(records, config.function, others + config.requested, "ConcurrentExecutions")

    def _check_left(self, records: Records, name: str, wanted: int, member: str) -> None:
        """Refuse to set more executions aside for a function when too few would be left for the others."""
        taken = _set_aside(records)
        own = taken.pop(name, 0)
        least = self._limits.minimum_unreserved
        if wanted > own and self._limits.concurrent_executions - sum(taken.values()) - wanted < least:
            raise InvalidParameterValue(
                f"Specified {member} for function decreases account's UnreservedConcurrentExecution below its "
                f"minimum value of [{least}]."
            )


def _set_aside(records: Records) -> dict[str, int]:
    """Count the executions that no other function can have, by function: provisioned ones are part of a reservation."""
    taken: dict[str, int] = {}
    for config in records.list(PROVISIONED_CONCURRENCY):
        taken[config.function] = taken.get(config.function, 0) + config.requested
    for function in records.list(FUNCTIONS):
        if function.reserved_concurrency is not None:
            taken[function.name] = function.reserved_concurrency
    return taken


def _provisioned(records: Records, function: str, but: str | None = None) -> int:
    configs = records.list(PROVISIONED_CONCURRENCY, function)
    return sum(config.requested for config in configs if config.qualifier != but)


def _published(
    reference: FunctionReference,
    refusal: str = "The function resource provided must be an alias or a published version.",
) -> str:
    if reference.qualifier is None or reference.qualifier.startswith(LATEST):
        raise InvalidParameterValue(refusal)
    return reference.qualifier


def _check_qualifier(records: Records, reference: FunctionReference, scope: RequestScope) -> None:
    name, qualifier = reference.name, str(reference.qualifier)
    if qualifier.isdecimal():
        number = version_number(qualifier)
        if number is None or records.get(VERSIONS, name, number) is None:
            raise function_not_found(name, scope.account, scope.region, qualifier)
    elif records.get(ALIASES, name, qualifier) is None:
        raise ResourceNotFound(f"Cannot find alias arn: {function_arn(name, scope.account, scope.region, qualifier)}")


def _check_conflicts(records: Records, config: ProvisionedConcurrency) -> None:
    """Refuse provisioned concurrency for an alias and for its version at once."""
    alias = records.get(ALIASES, config.function, config.qualifier)
    if alias is not None:
        if alias.version == LATEST:
            raise InvalidParameterValue(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
            )
        if alias.weights:
            raise InvalidParameterValue("Alias with weights can not be used with Provisioned Concurrency")
        if records.get(PROVISIONED_CONCURRENCY, config.function, alias.version) is not None:
            raise ResourceConflict(
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
            )
        return
    for other in records.list(ALIASES, config.function):
        provisioned = records.get(PROVISIONED_CONCURRENCY, config.function, other.name)
        if other.version == config.qualifier and provisioned is not None:
            raise ResourceConflict("Version is pointed by a Provisioned Concurrency alias")


def _check_snap_start(records: Records, config: ProvisionedConcurrency) -> None:
    """Refuse provisioned concurrency for a version with SnapStart."""
    alias = records.get(ALIASES, config.function, config.qualifier)
    version = records.get(VERSIONS, config.function, int(config.qualifier if alias is None else alias.version))
    if version is not None and version.wants_snapshot:
        raise InvalidParameterValue(NOT_WITH_SNAP_START)


def _described(config: ProvisionedConcurrency, readiness: Readiness) -> ProvisionedConcurrencyConfigListItemTypeDef:
    """Write a configuration as AWS answers it: the one place that does."""
    described: ProvisionedConcurrencyConfigListItemTypeDef = {
        "RequestedProvisionedConcurrentExecutions": config.requested,
        "AvailableProvisionedConcurrentExecutions": readiness.ready,
        "AllocatedProvisionedConcurrentExecutions": readiness.ready,
        "Status": readiness.status,
        "LastModified": config.last_modified,
    }
    if readiness.failure is not None:
        described["StatusReason"] = readiness.failure
    return described
