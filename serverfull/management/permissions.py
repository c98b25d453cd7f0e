"""Resource-based policies of functions, versions and aliases, statement by statement and as whole documents.

A resource has one policy: AddPermission and RemovePermission change single statements of the document that
PutResourcePolicy replaces. Its revision is that of the version or alias, which changes with the policy, as on AWS.
Everything that touches state runs in transactions on the store's thread. Gap: nothing is authorised by policies yet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import ALIASES, VERSIONS, Alias, FunctionVersion
from serverfull.domain.names import LATEST, FunctionReference, function_arn, partition_of
from serverfull.domain.permissions import POLICIES, Policy
from serverfull.errors import InvalidParameterValue, NotFoundError, ResourceNotFound
from serverfull.management.policy_documents import (
    as_json,
    check_new_statement,
    check_size,
    new_document,
    policy_not_found,
    principal_of,
    read_document,
    statement_not_found,
)
from serverfull.management.stamps import check_revision, new_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from types_boto3_lambda.type_defs import (
        AddPermissionRequestTypeDef,
        DeleteResourcePolicyRequestTypeDef,
        GetPolicyRequestTypeDef,
        GetResourcePolicyRequestTypeDef,
        PutResourcePolicyRequestTypeDef,
        RemovePermissionRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.resolution import FunctionResolver


class Permissions:
    """The operations on policies of functions.

    :param state: where policies are kept.
    """

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "AddPermission": self.add_permission,
            "GetPolicy": self.get_policy,
            "RemovePermission": self.remove_permission,
            "GetResourcePolicy": self.get_resource_policy,
            "PutResourcePolicy": self.put_resource_policy,
            "DeleteResourcePolicy": self.delete_resource_policy,
        }

    async def add_permission(self, request: AddPermissionRequestTypeDef, scope: RequestScope) -> Response:
        """Add a statement that allows a principal an action.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias.
        :raises ResourceConflict: the policy has a statement of that id.
        :raises PreconditionFailed: RevisionId is not that of the version or alias.
        :raises PolicyLengthExceeded: the policy would be longer than 20 KB.
        :raises InvalidParameterValue: the principal is none, or a condition does not go with the action.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
        """
        reference = await self._resolver.writable(request, scope)
        _refuse_latest(reference)
        _check_conditions(request)

        def work(records: Records) -> Response:
            holder = self._holder(records, reference, scope)
            check_revision(request.get("RevisionId"), holder.revision_id)
            policy = records.get(POLICIES, reference.name, reference.qualifier or "")
            content = dict(policy.content) if policy else new_document([])
            check_new_statement(request["StatementId"], [held.get("Sid") for held in content["Statement"]])
            statement = _statement(request, _arn(reference, scope), scope.region)
            _keep(records, reference, content | {"Statement": [*content["Statement"], statement]})
            _renew(records, holder)
            return {"Statement": as_json(statement)}

        return await self._write(reference, scope, work)

    async def get_policy(self, request: GetPolicyRequestTypeDef, scope: RequestScope) -> Response:
        """Give the policy of a function, version or alias.

        :raises NotFoundError: there is no such function.
        :raises ResourceNotFound: it has no policy.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetPolicy.html
        """
        return await self._get(self._resolver.reference(request, scope), scope)

    async def remove_permission(self, request: RemovePermissionRequestTypeDef, scope: RequestScope) -> Response:
        """Remove a statement; with the last one the policy goes.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias, policy or statement.
        :raises PreconditionFailed: RevisionId is not that of the version or alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_RemovePermission.html
        """
        reference = await self._resolver.writable(request, scope)
        sid = request["StatementId"]

        def work(records: Records) -> Response:
            try:
                self._resolver.function(records, reference, scope)
            except NotFoundError:
                unqualified = function_arn(reference.name, scope.account, scope.region)
                raise ResourceNotFound(f"No policy found for: {unqualified}") from None
            holder = self._holder(records, reference, scope)
            policy = _policy(records, reference)
            kept = [held for held in policy.content["Statement"] if held.get("Sid") != sid]
            if len(kept) == len(policy.content["Statement"]):
                raise statement_not_found(sid)
            check_revision(request.get("RevisionId"), holder.revision_id)
            if kept:
                _keep(records, reference, {**policy.content, "Statement": kept})
            else:
                records.delete(POLICIES, policy.function, policy.qualifier)
            _renew(records, holder)
            return {}

        return await self._write(reference, scope, work)

    async def get_resource_policy(self, request: GetResourcePolicyRequestTypeDef, scope: RequestScope) -> Response:
        """Give the policy of a function, version or alias by its ARN.

        :raises NotFoundError: there is no such function.
        :raises ResourceNotFound: it has no policy.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetResourcePolicy.html
        """
        return await self._get(self._resolver.reference(_of_arn(request), scope), scope)

    async def put_resource_policy(self, request: PutResourcePolicyRequestTypeDef, scope: RequestScope) -> Response:
        """Replace the policy of a function, version or alias by a whole document.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias.
        :raises PreconditionFailed: RevisionId is not that of the version or alias.
        :raises PolicyLengthExceeded: the policy is longer than 20 KB.
        :raises InvalidParameterValue: it is no policy document, or one for another resource.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutResourcePolicy.html
        """
        reference = await self._resolver.writable(_of_arn(request), scope)
        _refuse_latest(reference)
        content = read_document(request["Policy"], _arn(reference, scope))

        def work(records: Records) -> Response:
            holder = self._holder(records, reference, scope)
            check_revision(request.get("RevisionId"), holder.revision_id, "GetResourcePolicy")
            _keep(records, reference, content)
            return {"Policy": as_json(content), "RevisionId": _renew(records, holder)}

        return await self._write(reference, scope, work)

    async def delete_resource_policy(
        self, request: DeleteResourcePolicyRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Delete the policy of a function, version or alias.

        :raises NotFoundError: there is no such function or version.
        :raises ResourceNotFound: there is no such alias, or it has no policy.
        :raises PreconditionFailed: RevisionId is not that of the version or alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteResourcePolicy.html
        """
        reference = await self._resolver.writable(_of_arn(request), scope)

        def work(records: Records) -> Response:
            holder = self._holder(records, reference, scope)
            policy = _policy(records, reference)
            check_revision(request.get("RevisionId"), holder.revision_id, "GetResourcePolicy")
            records.delete(POLICIES, policy.function, policy.qualifier)
            _renew(records, holder)
            return {}

        return await self._write(reference, scope, work)

    async def _write(
        self, reference: FunctionReference, scope: RequestScope, work: Callable[[Records], Response]
    ) -> Response:
        """Write, and tell of the new revision."""
        response = await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return response

    async def _get(self, reference: FunctionReference, scope: RequestScope) -> Response:
        registered = await self._resolver.registered(reference.name, scope) is not None

        def work(records: Records) -> Response:
            if not registered:
                self._resolver.function(records, reference, scope)
            policy = records.get(POLICIES, reference.name, reference.qualifier or "")
            if registered or policy is None:
                raise ResourceNotFound("The resource you requested does not exist.")
            holder = self._holder(records, reference, scope)
            return {"Policy": as_json(policy.content), "RevisionId": holder.revision_id}

        return await self._state.read(scope.partition, work)

    def _holder(self, records: Records, reference: FunctionReference, scope: RequestScope) -> FunctionVersion | Alias:
        """Find what has the policy: an alias has one of its own, whatever version it stands for."""
        self._resolver.function(records, reference, scope)
        qualifier = reference.qualifier
        if qualifier in (None, LATEST) or str(qualifier).isdecimal():
            return self._resolver.version(records, reference, scope)
        alias = records.get(ALIASES, reference.name, str(qualifier))
        if alias is None:
            raise ResourceNotFound(f"Cannot find alias arn: {_arn(reference, scope)}")
        return alias


def _of_arn(request: Request) -> Request:
    """Read ResourceArn as the name of a function; runtimes have ARNs too, but none is here to have a policy."""
    if ":runtime/" in request["ResourceArn"]:
        raise ResourceNotFound("The resource you requested does not exist.")
    return {"FunctionName": request["ResourceArn"]}


def _refuse_latest(reference: FunctionReference) -> None:
    if reference.qualifier is not None and reference.qualifier.startswith("$LATEST"):
        raise InvalidParameterValue("We currently do not support adding policies for $LATEST.")


def _arn(reference: FunctionReference, scope: RequestScope) -> str:
    return function_arn(reference.name, scope.account, scope.region, reference.qualifier)


def _policy(records: Records, reference: FunctionReference) -> Policy:
    policy = records.get(POLICIES, reference.name, reference.qualifier or "")
    if policy is None:
        raise policy_not_found()
    return policy


def _keep(records: Records, reference: FunctionReference, content: Mapping[str, Any]) -> None:
    check_size(content)
    policy = Policy(function=reference.name, qualifier=reference.qualifier or "", content=content)
    there = records.get(POLICIES, policy.function, policy.qualifier) is not None
    (records.replace if there else records.insert)(POLICIES, policy)


def _renew(records: Records, holder: FunctionVersion | Alias) -> str:
    revision = new_revision()
    if isinstance(holder, Alias):
        records.replace(ALIASES, replace(holder, revision_id=revision))
    else:
        records.replace(VERSIONS, replace(holder, revision_id=revision))
    return revision


def _check_conditions(request: Request) -> None:
    for member, action in (("FunctionUrlAuthType", "InvokeFunctionUrl"), ("InvokedViaFunctionUrl", "InvokeFunction")):
        if member in request and request["Action"] != f"lambda:{action}":
            raise InvalidParameterValue(f"{member} is only supported for lambda:{action} action")


def _statement(request: Request, arn: str, region: str) -> dict[str, Any]:
    """Write the statement of AddPermission: the one place that does."""
    statement = {
        "Sid": request["StatementId"],
        "Effect": "Allow",
        "Principal": principal_of(request["Principal"], partition_of(region)),
        "Action": request["Action"],
        "Resource": arn,
    }
    condition = _condition(request)
    return statement | {"Condition": condition} if condition else statement


_EQUALS = {
    "SourceAccount": "AWS:SourceAccount",
    "PrincipalOrgID": "aws:PrincipalOrgID",
    "FunctionUrlAuthType": "lambda:FunctionUrlAuthType",
    "EventSourceToken": "lambda:EventSourceToken",
}


def _condition(request: Request) -> dict[str, dict[str, str]]:
    condition: dict[str, dict[str, str]] = {}
    equals = {key: request[member] for member, key in _EQUALS.items() if member in request}
    if equals:
        condition["StringEquals"] = equals
    if "SourceArn" in request:
        condition["ArnLike"] = {"AWS:SourceArn": request["SourceArn"]}
    if "InvokedViaFunctionUrl" in request:
        condition["Bool"] = {"lambda:InvokedViaFunctionUrl": str(request["InvokedViaFunctionUrl"]).lower()}
    return condition
