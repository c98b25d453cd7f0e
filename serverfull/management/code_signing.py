"""Code signing: configurations, the functions that use them, and what they make of packages.

Everything that touches state runs in transactions on the store's thread. This host can tell whether a package has a
signature of AWS Signer; it cannot tell whose, because that takes AWS's certificates and its list of what was revoked.
So a configuration that enforces trusts no package here, and one that warns warns of each.
"""

from __future__ import annotations

import io
import re
import secrets
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.code_signing import CODE_SIGNING_CONFIGS, CodeSigningConfig, code_signing_arn
from serverfull.domain.deployed import FUNCTIONS, LATEST_NUMBER, VERSIONS, DeployedFunction
from serverfull.domain.names import function_arn, is_partition_of
from serverfull.domain.records import Partition
from serverfull.errors import (
    CodeSigningConfigNotFound,
    CodeVerificationFailed,
    InvalidParameterValue,
    ResourceConflict,
    ResourceNotFound,
)
from serverfull.management.paging import read_page
from serverfull.management.stamps import timestamp
from serverfull.management.tagging import merge_tags
from serverfull.management.validation import check_unqualified

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from types_boto3_lambda.type_defs import (
        CreateCodeSigningConfigRequestTypeDef,
        DeleteCodeSigningConfigRequestTypeDef,
        DeleteFunctionCodeSigningConfigRequestTypeDef,
        GetCodeSigningConfigRequestTypeDef,
        GetFunctionCodeSigningConfigRequestTypeDef,
        ListCodeSigningConfigsRequestTypeDef,
        ListFunctionsByCodeSigningConfigRequestTypeDef,
        PutFunctionCodeSigningConfigRequestTypeDef,
        UpdateCodeSigningConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.layers import LayerVersion
    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.resolution import FunctionResolver


SIGNATURE = "META_INF/aws_signer_signature_v1.0.SF"
"""The entry that AWS Signer adds to a zip archive when it signs it."""

PAGE_SIZE = 10_000
"""Configurations, or functions of one, in an answer at most, as in AWS."""

_ARN = re.compile(r"arn:([^:]*):lambda:([^:]+):(\d{12}):code-signing-config:(csc-[a-z0-9]{17})", re.ASCII)
_ID_CHARACTERS = "0123456789abcdef"


class CodeSigning:
    """The operations on code signing configurations, and on the one of a function.

    :param state: where configurations are kept.
    """

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "CreateCodeSigningConfig": self.create,
            "GetCodeSigningConfig": self.get,
            "UpdateCodeSigningConfig": self.update,
            "DeleteCodeSigningConfig": self.delete,
            "ListCodeSigningConfigs": self.list,
            "PutFunctionCodeSigningConfig": self.put_function_config,
            "GetFunctionCodeSigningConfig": self.get_function_config,
            "DeleteFunctionCodeSigningConfig": self.delete_function_config,
            "ListFunctionsByCodeSigningConfig": self.list_functions,
        }

    async def create(self, request: CreateCodeSigningConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Create a configuration.

        :raises InvalidParameterValue: the tags are not allowed.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateCodeSigningConfig.html
        """
        config = CodeSigningConfig(
            id="csc-" + "".join(secrets.choice(_ID_CHARACTERS) for _ in range(17)),
            publishers=request["AllowedPublishers"]["SigningProfileVersionArns"],
            policy=_policy(request, "Warn"),
            description=request.get("Description"),
            tags=merge_tags({}, request.get("Tags", {})),
            last_modified=timestamp(),
        )
        await self._state.write(scope.partition, lambda records: records.insert(CODE_SIGNING_CONFIGS, config))
        return {"CodeSigningConfig": _described(config, scope.partition)}

    async def get(self, request: GetCodeSigningConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Give a configuration.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetCodeSigningConfig.html
        """
        arn = request["CodeSigningConfigArn"]
        config = await self._state.read(scope.partition, lambda records: find_config(records, arn, scope.partition))
        return {"CodeSigningConfig": _described(config, scope.partition)}

    async def update(self, request: UpdateCodeSigningConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Change a configuration; packages that are deployed already stay.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateCodeSigningConfig.html
        """

        def work(records: Records) -> CodeSigningConfig:
            config = find_config(records, request["CodeSigningConfigArn"], scope.partition)
            publishers = request.get("AllowedPublishers")
            changed = replace(
                config,
                publishers=publishers["SigningProfileVersionArns"] if publishers else config.publishers,
                policy=_policy(request, config.policy),
                description=request.get("Description", config.description),
                last_modified=timestamp(),
            )
            records.replace(CODE_SIGNING_CONFIGS, changed)
            return changed

        return {"CodeSigningConfig": _described(await self._state.write(scope.partition, work), scope.partition)}

    async def delete(self, request: DeleteCodeSigningConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Delete a configuration that no function uses.

        :raises ResourceNotFound: there is none.
        :raises ResourceConflict: functions use it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteCodeSigningConfig.html
        """

        def work(records: Records) -> Response:
            config = find_config(records, request["CodeSigningConfigArn"], scope.partition)
            users = records.count(
                FUNCTIONS, where={"code_signing_config": code_signing_arn(config.id, scope.partition)}
            )
            if users:
                raise ResourceConflict(
                    f"The code signing configuration is in use by {users} function{'s' if users > 1 else ''}. "
                    "ListFunctionsByCodeSigningConfig names them."
                )
            records.delete(CODE_SIGNING_CONFIGS, config.id)
            return {}

        return await self._state.write(scope.partition, work)

    async def list(self, request: ListCodeSigningConfigsRequestTypeDef, scope: RequestScope) -> Response:
        """List the configurations, by their ids.

        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListCodeSigningConfigs.html
        """
        page = read_page(request, str, size=PAGE_SIZE)
        configs = await self._state.read(
            scope.partition, lambda records: records.list(CODE_SIGNING_CONFIGS, after=page.after, limit=page.limit)
        )
        cut = page.cut(configs, CODE_SIGNING_CONFIGS.key_of)
        described = [_described(config, scope.partition) for config in cut.items]
        return {"CodeSigningConfigs": described, "NextMarker": cut.next_marker}

    async def put_function_config(
        self, request: PutFunctionCodeSigningConfigRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Have a function's packages checked by a configuration from now on.

        :raises CodeSigningConfigNotFound: there is no such configuration.
        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the name has a qualifier, or the function is an image.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PutFunctionCodeSigningConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        arn = request["CodeSigningConfigArn"]

        def work(records: Records) -> Response:
            config = config_of(records, arn, scope.partition)
            function = self._zip_function(records, reference, scope)
            known = code_signing_arn(config.id, scope.partition)
            records.replace(FUNCTIONS, replace(function, code_signing_config=known))
            return {"CodeSigningConfigArn": known, "FunctionName": function.name}

        return await self._write(reference, scope, work)

    async def get_function_config(
        self, request: GetFunctionCodeSigningConfigRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Give the configuration of a function; nothing where it has none, as on AWS.

        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the name has a qualifier, or the function is an image.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionCodeSigningConfig.html
        """
        reference = self._resolver.reference(request, scope)
        if await self._resolver.registered(reference.name, scope) is not None:
            return {}
        function = await self._state.read(
            scope.partition, lambda records: self._zip_function(records, reference, scope)
        )
        if function.code_signing_config is None:
            return {}
        return {"CodeSigningConfigArn": function.code_signing_config, "FunctionName": function.name}

    async def delete_function_config(
        self, request: DeleteFunctionCodeSigningConfigRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Take the configuration of a function away; that it has none is fine.

        :raises NotFoundError: there is no such function.
        :raises InvalidParameterValue: the name has a qualifier, or the function is an image.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionCodeSigningConfig.html
        """
        reference = await self._resolver.writable(request, scope)

        def work(records: Records) -> Response:
            function = self._zip_function(records, reference, scope)
            records.replace(FUNCTIONS, replace(function, code_signing_config=None))
            return {}

        return await self._write(reference, scope, work)

    async def list_functions(
        self, request: ListFunctionsByCodeSigningConfigRequestTypeDef, scope: RequestScope
    ) -> Response:
        """List the ARNs of the functions that use a configuration.

        :raises ResourceNotFound: there is no such configuration.
        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionsByCodeSigningConfig.html
        """
        page = read_page(request, str, size=PAGE_SIZE)

        def work(records: Records) -> Sequence[DeployedFunction]:
            config = find_config(records, request["CodeSigningConfigArn"], scope.partition)
            where = {"code_signing_config": code_signing_arn(config.id, scope.partition)}
            return records.list(FUNCTIONS, after=page.after, limit=page.limit, where=where)

        cut = page.cut(await self._state.read(scope.partition, work), FUNCTIONS.key_of)
        arns = [function_arn(function.name, scope.account, scope.region) for function in cut.items]
        return {"FunctionArns": arns, "NextMarker": cut.next_marker}

    async def _write(
        self, reference: FunctionReference, scope: RequestScope, work: Callable[[Records], Response]
    ) -> Response:
        response = await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return response

    def _zip_function(self, records: Records, reference: FunctionReference, scope: RequestScope) -> DeployedFunction:
        check_unqualified(reference)
        function = self._resolver.function(records, reference, scope)
        latest = records.get(VERSIONS, function.name, LATEST_NUMBER)
        if latest is not None and latest.package_type == "Image":
            raise InvalidParameterValue("Code signing is not supported for functions created with container images.")
        return function


def find_config(records: Records, arn: str, partition: Partition) -> CodeSigningConfig:
    """Find a configuration by its ARN.

    :raises ResourceNotFound: there is none, or not in this account and region.
    """
    match = _ARN.fullmatch(arn)
    found = None
    if match is not None and Partition(match[3], match[2]) == partition and is_partition_of(match[1], match[2]):
        found = records.get(CODE_SIGNING_CONFIGS, match[4])
    if found is None:
        raise ResourceNotFound(f"The Lambda code signing configuration {arn} can not be found.")
    return found


def config_of(records: Records, arn: str, partition: Partition) -> CodeSigningConfig:
    """Find the configuration that a function is to have.

    :raises CodeSigningConfigNotFound: there is none, or not in this account and region.
    """
    try:
        return find_config(records, arn, partition)
    except ResourceNotFound:
        raise CodeSigningConfigNotFound(
            "The code signing configuration cannot be found. "
            f"Check that the provided configuration is not deleted: {arn}."
        ) from None


def is_signed(package: bytes) -> bool:
    """Tell whether a zip archive has a signature of AWS Signer, of whatever worth. Blocks: call it on a thread."""
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            return SIGNATURE in archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def check_signature(
    records: Records,
    config: CodeSigningConfig | DeployedFunction,
    name: str,
    signed: bool,
    layers: Sequence[LayerVersion] = (),
) -> str | None:
    """Check a package, and the layers of its function, before they are deployed.

    :param config: the configuration, or the function that may have one.
    :param name: of the function, for messages.
    :param signed: whether the package has a signature (`is_signed`).
    :returns: what the host's log should say, where the policy is to warn; None where nothing is checked.
    :raises CodeVerificationFailed: the policy is to enforce.
    """
    if isinstance(config, DeployedFunction):
        if config.code_signing_config is None:
            return None
        found = records.get(CODE_SIGNING_CONFIGS, config.code_signing_config.rpartition(":")[2])
        if found is None:
            raise CodeVerificationFailed(f"The code signing configuration of {name} is missing, so nothing is trusted.")
        config = found
    reason = _why_untrusted(signed, layers)
    if config.policy == "Enforce":
        raise CodeVerificationFailed(
            "Lambda cannot deploy the function. The function or layer might be signed using a signature that the "
            f"client is not configured to accept. Check the provided signature for {name}. {reason}"
        )
    return f"The code of {name} was deployed though its signature is not trusted. {reason}"


def _why_untrusted(signed: bool, layers: Sequence[LayerVersion]) -> str:
    if not signed:
        return "The package is not signed."
    unsigned = [f"{layer.layer}:{layer.number}" for layer in layers if not layer.signed]
    if unsigned:
        return f"The layers {', '.join(unsigned)} are not signed."
    return (
        "It is signed by AWS Signer, and this host cannot verify such signatures: "
        "neither the signing profile nor the content is certain."
    )


def _policy(request: Request, default: str) -> str:
    policy: str = request.get("CodeSigningPolicies", {}).get("UntrustedArtifactOnDeployment", default)
    return policy


def _described(config: CodeSigningConfig, partition: Partition) -> Response:
    """Write a configuration as AWS's CodeSigningConfig: the one place that does."""
    return {
        "CodeSigningConfigId": config.id,
        "CodeSigningConfigArn": code_signing_arn(config.id, partition),
        "Description": config.description,
        "AllowedPublishers": {"SigningProfileVersionArns": [*config.publishers]},
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": config.policy},
        "LastModified": config.last_modified,
    }
