"""The one resolver of name, ARN and qualifier for every operation on functions that were deployed.

`FunctionResolver` first reads what the caller named; then, inside a transaction, `function`, `version` and `alias` find
it. What is not there is "Function not found" with its ARN, as on AWS. Functions of the operator's own fetchers can be
read like any other and not be written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from serverfull.domain.deployed import ALIASES, FUNCTIONS, LATEST_NUMBER, VERSIONS, Alias
from serverfull.domain.names import (
    LATEST,
    FunctionReference,
    check_reachable,
    function_not_found,
    parse_function_reference,
)
from serverfull.errors import NotFoundError, ReadOnlyFunction, ResourceConflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serverfull.domain.deployed import DeployedFunction, FunctionVersion
    from serverfull.domain.functions import Function
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Fetcher, Published, Records


_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


class FunctionResolver:
    """Finds functions for operations.

    :param registered: the operator's own functions, which the API cannot write.
    """

    def __init__(self, registered: Fetcher) -> None:
        self._registered = registered

    def reference(self, request: Mapping[str, Any], scope: RequestScope) -> FunctionReference:
        """Read FunctionName, and Qualifier where the request has one.

        :raises ValidationFailed: the name or the qualifier is none.
        :raises InvalidParameterValue: the name holds another qualifier than the request.
        :raises NotFoundError: it is an ARN of another account or region.
        """
        reference = parse_function_reference(request["FunctionName"], request.get("Qualifier"))
        check_reachable(reference, scope.account if scope.account_known else None, scope.region)
        return reference

    async def writable(self, request: Mapping[str, Any], scope: RequestScope) -> FunctionReference:
        """Read what a writing operation names.

        :raises ReadOnlyFunction: the operator's own code defines this function. And what `reference` raises.
        """
        reference = self.reference(request, scope)
        view = self._registered.at(scope.partition)
        if await _found(view, reference.name) is not None:
            source = view.source_of(reference.name)
            raise ReadOnlyFunction(
                f"The function {reference.name} comes from the {source} fetcher, which the API cannot write. "
                "Change it where it is defined, or deploy under another name."
            )
        return reference

    async def registered(self, name: str, scope: RequestScope) -> Function | None:
        """Give the operator's own function of that name, as the caller sees it, or None; it hides a deployed one."""
        return await _found(self._registered.at(scope.partition), name)

    async def published(self, name: str, scope: RequestScope) -> Published | None:
        """Say which versions and aliases the operator's own function of that name has; None: there is none."""
        try:
            return await self._registered.at(scope.partition).published(name)
        except NotFoundError:
            return None

    def function(self, records: Records, reference: FunctionReference, scope: RequestScope) -> DeployedFunction:
        """Find a function.

        :raises NotFoundError: there is none.
        """
        found = records.get(FUNCTIONS, reference.name)
        if found is None:
            raise function_not_found(reference.name, scope.account, scope.region, reference.qualifier)
        return found

    def version(self, records: Records, reference: FunctionReference, scope: RequestScope) -> FunctionVersion:
        """Find the version that a qualifier means: itself, or the first one of an alias.

        :raises NotFoundError: there is no such function, version or alias.
        """
        number: int | None = LATEST_NUMBER
        if reference.qualifier not in (None, LATEST):
            text = str(reference.qualifier)
            if not text.isdecimal():
                text = self.alias(records, reference.name, text, scope).version
            number = version_number(text) if text != LATEST else LATEST_NUMBER
        found = None if number is None else records.get(VERSIONS, reference.name, number)
        if found is None:
            raise function_not_found(reference.name, scope.account, scope.region, reference.qualifier)
        return found

    def alias(self, records: Records, function: str, name: str, scope: RequestScope) -> Alias:
        """Find an alias.

        :raises NotFoundError: there is no such function or alias.
        """
        found = records.get(ALIASES, function, name)
        if found is None:
            raise function_not_found(function, scope.account, scope.region, name)
        return found


async def _found(fetcher: Fetcher, name: str) -> Function | None:
    try:
        return await fetcher.fetch(name)
    except NotFoundError:
        return None


def exists(records: Records, reference: FunctionReference) -> bool:
    """Tell whether there is what was named: the function, or its version or alias."""
    name, qualifier = reference.name, reference.qualifier
    if qualifier in (None, LATEST):
        return records.get(FUNCTIONS, name) is not None
    number = version_number(str(qualifier))
    if number is not None:
        return records.get(VERSIONS, name, number) is not None
    return records.get(ALIASES, name, str(qualifier)) is not None


def version_number(qualifier: str) -> int | None:
    """Read the number of a published version; None where none can have it, as with ``0``, ``007`` and twenty digits."""
    return int(qualifier) if _NUMBER.fullmatch(qualifier) else None


def check_not_updating(version: FunctionVersion, arn: str) -> None:
    """Refuse to change a function while a change is under way.

    :raises ResourceConflict: in AWS's words.
    """
    if version.state == "Pending":
        raise ResourceConflict(
            "The operation cannot be performed at this time. The function is currently in the following state: Pending"
        )
    if version.last_update_status == "InProgress":
        raise ResourceConflict(
            "The operation cannot be performed at this time. An update is in progress for resource: " + arn
        )
