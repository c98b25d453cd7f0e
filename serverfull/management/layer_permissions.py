"""Who may use the versions of layers.

Everything that touches state runs in transactions on the store's thread. Gap: nothing is authorised by these policies
yet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serverfull.domain.layers import LAYER_VERSIONS, LayerVersion, layer_arn
from serverfull.domain.names import partition_of
from serverfull.errors import InvalidParameterValue, ResourceNotFound
from serverfull.management.layers import find_version, layer_name
from serverfull.management.policy_documents import (
    as_json,
    check_new_statement,
    check_size,
    new_document,
    policy_not_found,
    principal_of,
    statement_not_found,
)
from serverfull.management.stamps import check_revision, new_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from types_boto3_lambda.type_defs import (
        AddLayerVersionPermissionRequestTypeDef,
        GetLayerVersionPolicyRequestTypeDef,
        RemoveLayerVersionPermissionRequestTypeDef,
    )

    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response


class LayerPermissions:
    """The operations on policies of layer versions.

    :param state: where layers are kept.
    """

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "AddLayerVersionPermission": self.add_permission,
            "GetLayerVersionPolicy": self.get_policy,
            "RemoveLayerVersionPermission": self.remove_permission,
        }

    async def add_permission(self, request: AddLayerVersionPermissionRequestTypeDef, scope: RequestScope) -> Response:
        """Add a statement that lets an account, or several, use a version of a layer.

        :raises ResourceNotFound: there is no such version.
        :raises ResourceConflict: its policy has a statement of that id.
        :raises PreconditionFailed: RevisionId is not that of the policy.
        :raises PolicyLengthExceeded: the policy would be longer than 20 KB.
        :raises InvalidParameterValue: an organization is given with a single account.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_AddLayerVersionPermission.html
        """
        sid = request["StatementId"]
        statement = _statement(request, scope)

        def work(records: Records) -> Response:
            version = _permitted_version(records, request, scope)
            check_new_statement(sid, version.statements)
            check_revision(request.get("RevisionId"), version.policy_revision, "GetLayerPolicy")
            changed = _with_statements(version, {**version.statements, sid: statement})
            check_size(new_document([*changed.statements.values()]))
            records.replace(LAYER_VERSIONS, changed)
            return {"Statement": as_json(statement), "RevisionId": changed.policy_revision}

        return await self._state.write(scope.partition, work)

    async def get_policy(self, request: GetLayerVersionPolicyRequestTypeDef, scope: RequestScope) -> Response:
        """Give the policy of a version of a layer.

        :raises ResourceNotFound: there is no such version, or it has no policy.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetLayerVersionPolicy.html
        """

        def work(records: Records) -> LayerVersion:
            return _permitted_version(records, request, scope)

        version = await self._state.read(scope.partition, work)
        if not version.statements:
            raise policy_not_found()
        policy = as_json(new_document([*version.statements.values()]))
        return {"Policy": policy, "RevisionId": version.policy_revision}

    async def remove_permission(
        self, request: RemoveLayerVersionPermissionRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Remove a statement from the policy of a version of a layer.

        :raises ResourceNotFound: there is no such version, policy or statement.
        :raises PreconditionFailed: RevisionId is not that of the policy.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_RemoveLayerVersionPermission.html
        """
        sid = request["StatementId"]

        def work(records: Records) -> Response:
            version = _permitted_version(records, request, scope)
            if not version.statements:
                raise policy_not_found()
            check_revision(request.get("RevisionId"), version.policy_revision, "GetLayerPolicy")
            if sid not in version.statements:
                raise statement_not_found(sid)
            kept = {key: statement for key, statement in version.statements.items() if key != sid}
            records.replace(LAYER_VERSIONS, _with_statements(version, kept))
            return {}

        return await self._state.write(scope.partition, work)


def _permitted_version(records: Records, request: Request, scope: RequestScope) -> LayerVersion:
    """Find what an operation on a policy names.

    :raises ResourceNotFound: there is none.
    """
    number = request["VersionNumber"]
    name = layer_name(request["LayerName"], scope)
    version = find_version(records, name, number)
    if version is None:
        raise ResourceNotFound(f"Layer version {layer_arn(name, scope.partition, number)} does not exist.")
    return version


def _with_statements(version: LayerVersion, statements: Mapping[str, Mapping[str, Any]]) -> LayerVersion:
    return replace(version, statements=statements, policy_revision=new_revision())


def _statement(request: Request, scope: RequestScope) -> dict[str, Any]:
    """Write the statement of AddLayerVersionPermission: the one place that does."""
    name = layer_name(request["LayerName"], scope)
    statement = {
        "Sid": request["StatementId"],
        "Effect": "Allow",
        "Principal": principal_of(request["Principal"], partition_of(scope.region)),
        "Action": request["Action"],
        "Resource": layer_arn(name, scope.partition, request["VersionNumber"]),
    }
    organization = request.get("OrganizationId")
    if organization is None:
        return statement
    if request["Principal"] != "*":
        raise InvalidParameterValue("OrganizationId can only be specified when the principal is *.")
    return statement | {"Condition": {"StringEquals": {"aws:PrincipalOrgID": organization}}}
