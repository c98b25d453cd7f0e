"""CreateFunction, UpdateFunctionCode, UpdateFunctionConfiguration and DeleteFunction.

Each reads its request and checks it against the state first, so that hopeless requests cost nothing; takes in the code;
and then checks and writes in one transaction. Of two at once, one is written, and the other finds an update in progress
or another revision. The answer goes out while the code is still being prepared (`serverfull.management.preparation`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import ALIASES, FUNCTIONS, PREPARATIONS, VERSIONS, DeployedFunction, FunctionVersion
from serverfull.domain.kinds import KINDS
from serverfull.domain.layers import LAYER_VERSIONS, LayerVersion, layer_key
from serverfull.domain.names import LATEST, FunctionReference, function_arn
from serverfull.errors import InvalidParameterValue, ResourceConflict
from serverfull.interfaces import Records
from serverfull.management.account import check_code_storage, check_unzipped_size
from serverfull.management.aliases import aliases_of_version, forget_qualifier
from serverfull.management.capacity_providers import find_provider, provider_arn
from serverfull.management.code_signing import check_signature, config_of
from serverfull.management.destinations import check_dead_letter
from serverfull.management.members import configured
from serverfull.management.preparation import in_progress, pending, request_preparation
from serverfull.management.resolution import check_not_updating, version_number
from serverfull.management.stamps import check_revision, new_revision, timestamp
from serverfull.management.tagging import merge_tags
from serverfull.management.validation import (
    check_configuration,
    check_latest,
    check_layers,
    check_new_name,
    check_runtime,
)
from serverfull.management.versions import check_publish_to, publish

if TYPE_CHECKING:
    from types_boto3_lambda.type_defs import (
        CreateFunctionRequestTypeDef,
        DeleteFunctionRequestTypeDef,
        UpdateFunctionCodeRequestTypeDef,
        UpdateFunctionConfigurationRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.concurrency import AccountLimits
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import StateStore
    from serverfull.management.configuration import Configurations
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.packages import Package, PackageIntake
    from serverfull.management.preparation import Preparations
    from serverfull.management.resolution import FunctionResolver


FindLayers: TypeAlias = "Callable[[Records, RequestScope, Sequence[str]], Sequence[LayerVersion]]"
"""Gives the versions of layers for their ARNs, in that order, inside a transaction; raises InvalidParameterValue where
there is none."""


class Deployments:
    """The operations that make functions, change them and take them away.

    :param configurations: writes the answers.
    :param packages: takes in code.
    :param preparations: makes versions ready to run.
    :param find_layers: looks layers up.
    :param limits: the room that an account has for packages.
    :param reachable: the services, as ARNs call them, that the host can send dead letters to.
    :param logger: takes what an operator should know of code whose signature nobody trusts.
    """

    def __init__(
        self,
        state: StateStore,
        resolver: FunctionResolver,
        changes: Changes,
        *,
        configurations: Configurations,
        packages: PackageIntake,
        preparations: Preparations,
        find_layers: FindLayers,
        limits: AccountLimits,
        reachable: Collection[str],
        logger: Any,
    ) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes
        self._configurations = configurations
        self._packages = packages
        self._preparations = preparations
        self._find_layers = find_layers
        self._limits = limits
        self._reachable = reachable
        self._logger = logger

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "CreateFunction": self.create_function,
            "UpdateFunctionCode": self.update_function_code,
            "UpdateFunctionConfiguration": self.update_function_configuration,
            "DeleteFunction": self.delete_function,
        }

    async def create_function(self, request: CreateFunctionRequestTypeDef, scope: RequestScope) -> Response:
        """Make a function, and publish it as version 1 where that is asked for.

        :raises ResourceConflict: there is one of that name.
        :raises InvalidParameterValue: its code or its configuration cannot be used.
        :raises CodeVerificationFailed: the code is not signed as the code signing configuration wants it.
        :raises CodeStorageExceeded: the account has no room for it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
        """
        reference = await self._resolver.writable(request, scope)
        check_new_name(reference)
        check_publish_to(request)
        function = DeployedFunction(
            name=reference.name,
            tags=merge_tags({}, request.get("Tags", {})),
            code_signing_config=request.get("CodeSigningConfigArn") or None,
            generation=new_revision(),
        )
        first = pending(_first_version(reference.name, request))

        def check(records: Records) -> FunctionVersion:
            if records.get(FUNCTIONS, function.name) is not None:
                raise ResourceConflict(f"Function already exist: {function.name}")
            _check_code_signing(records, function, first, scope)
            return self._configured(records, first, request, scope)

        # As a write, though it writes nothing: a state that takes no deployments says so before it has the code.
        await self._state.write(scope.partition, check)
        package = await self._packages.read(request["Code"], first.package_type)
        await self._state.read(
            scope.partition, lambda records: self._check_package(records, check(records), function, package)
        )
        await self._packages.keep(package)
        frozen = await self._frozen(package, request)

        def write(records: Records) -> FunctionVersion:
            version = self._with_code(records, check(records), function, package, scope)
            records.insert(FUNCTIONS, function)
            records.insert(VERSIONS, version)
            request_preparation(records, version)
            return publish(records, version, self._limits, frozen=frozen) if request.get("Publish") else version

        version = await self._state.write(scope.partition, write)
        self._tell(scope, version)
        return self._configurations.deployed(version, scope)  # with a plain ARN, as on AWS, also of a version

    async def update_function_code(self, request: UpdateFunctionCodeRequestTypeDef, scope: RequestScope) -> Response:
        """Give ``$LATEST`` other code, and publish it where that is asked for; with DryRun, only say what would be.

        :raises NotFoundError: there is no such function.
        :raises ResourceConflict: it is being made or changed.
        :raises PreconditionFailed: RevisionId is not that of ``$LATEST``.
        :raises InvalidParameterValue: the code cannot be used.
        :raises CodeVerificationFailed: the code is not signed as the code signing configuration wants it.
        :raises CodeStorageExceeded: the account has no room for it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionCode.html
        """
        reference = await self._changeable(request, scope)
        latest = await self._state.read(
            scope.partition, lambda records: self._latest(records, reference, request, scope)
        )
        package = await self._packages.read(request, latest.package_type)

        def draft(records: Records) -> FunctionVersion:
            latest = self._latest(records, reference, request, scope)
            changed = configured(latest, {"Architectures": request.get("Architectures", [latest.architecture])})
            function = self._resolver.function(records, reference, scope)
            return self._with_code(records, changed, function, package, scope)

        if request.get("DryRun"):
            return self._configurations.deployed(await self._state.read(scope.partition, draft), scope)
        await self._state.read(
            scope.partition,
            lambda records: self._check_package(
                records,
                self._latest(records, reference, request, scope),
                self._resolver.function(records, reference, scope),
                package,
            ),
        )
        await self._packages.keep(package)
        return await self._write(draft, request, scope, await self._frozen(package, request))

    async def update_function_configuration(
        self, request: UpdateFunctionConfigurationRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Change the configuration of ``$LATEST``; what is not given stays.

        :raises NotFoundError: there is no such function.
        :raises ResourceConflict: it is being made or changed.
        :raises PreconditionFailed: RevisionId is not that of ``$LATEST``.
        :raises InvalidParameterValue: the configuration cannot be used.
        :raises CodeVerificationFailed: a layer is not signed as the code signing configuration wants it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionConfiguration.html
        """
        reference = await self._changeable(request, scope)
        signed = await self._signed_code(reference, request, scope)

        def draft(records: Records) -> FunctionVersion:
            latest = self._latest(records, reference, request, scope)
            if "CapacityProviderConfig" in request and "CapacityProviderConfig" not in latest.settings:
                raise InvalidParameterValue("CapacityProviderConfig cannot be added to a function made without it.")
            changed = self._configured(records, latest, request, scope)
            if signed is not None:
                self._check_signature(records, self._resolver.function(records, reference, scope), changed, signed)
            return changed

        return await self._write(draft, request, scope)

    async def delete_function(self, request: DeleteFunctionRequestTypeDef, scope: RequestScope) -> Response:
        """Delete a function with all that belongs to it, or one version of it. A version that is not there is fine.

        :raises NotFoundError: there is no such function.
        :raises ResourceConflict: aliases name the version.
        :raises InvalidParameterValue: the qualifier is ``$LATEST`` or an alias.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunction.html
        """
        reference = await self._resolver.writable(request, scope)
        name, qualifier = reference.name, reference.qualifier
        _check_deletable(qualifier)

        def work(records: Records) -> None:
            self._resolver.function(records, FunctionReference(name), scope)
            if qualifier is None:
                _delete_all(records, name)
            else:
                _delete_version(records, name, qualifier)

        await self._state.write(scope.partition, work)
        gone = None if qualifier is None else version_number(qualifier)
        self._changes.publish(FunctionChanged(scope.partition, name, deleted=qualifier is None, version=gone))
        return {"StatusCode": 204}

    async def _changeable(self, request: Request, scope: RequestScope) -> FunctionReference:
        """Read which function an update is for, and check what can be checked without it."""
        reference = await self._resolver.writable(request, scope)
        check_latest(reference)
        check_publish_to(request)
        return FunctionReference(reference.name)

    def _latest(
        self, records: Records, reference: FunctionReference, request: Request, scope: RequestScope
    ) -> FunctionVersion:
        """Give ``$LATEST``, if it may be changed now by whoever has seen the revision of the request."""
        latest = self._resolver.version(records, reference, scope)
        check_revision(request.get("RevisionId"), latest.revision_id)
        check_not_updating(latest, function_arn(reference.name, scope.account, scope.region))
        return latest

    def _configured(
        self, records: Records, version: FunctionVersion, request: Request, scope: RequestScope
    ) -> FunctionVersion:
        """Put the configuration of a request on a version, and refuse what AWS would."""
        check_runtime(request.get("Runtime"))
        check_dead_letter(request.get("DeadLetterConfig"), self._reachable)
        changed = configured(version, request)
        provider = provider_arn(request.get("CapacityProviderConfig"))
        if provider is not None:
            find_provider(records, provider, scope)
        if "Layers" in request:
            check_layers(request["Layers"], scope)
            settings = {member: value for member, value in changed.settings.items() if member != "Layers"}
            if request["Layers"]:
                settings["Layers"] = self._layers(records, request["Layers"], scope)
            changed = replace(changed, settings=settings)
            check_unzipped_size(records, changed)
        check_configuration(changed)
        return changed

    def _with_code(
        self,
        records: Records,
        version: FunctionVersion,
        function: DeployedFunction,
        package: Package,
        scope: RequestScope,
    ) -> FunctionVersion:
        """Put code on a version, if it may have it; the host's log says where its signature is not trusted."""
        self._check_package(records, version, function, package)
        if package.image_uri is None:
            self._check_signature(records, function, version, package.signed)
        return package.put_on(version)

    def _check_package(
        self, records: Records, version: FunctionVersion, function: DeployedFunction, package: Package
    ) -> None:
        """Refuse a package that the function's code signing configuration does not let in, or that has no room.

        Also called before a package is kept, so that nothing of one that is refused is left.
        """
        if package.image_uri is None:
            check_signature(
                records, function, function.name, package.signed, _signed_layers(records, function, version)
            )
        changed = package.put_on(version)
        check_unzipped_size(records, changed)
        check_code_storage(records, changed.code_size - version.code_size, self._limits)

    def _check_signature(
        self, records: Records, function: DeployedFunction, version: FunctionVersion, signed: bool
    ) -> None:
        """Refuse a package, or layers beside it, that the function's code signing configuration does not let in."""
        layers = _signed_layers(records, function, version)
        warning = check_signature(records, function, function.name, signed, layers)
        if warning is not None:
            self._logger.warning("untrusted code", function=function.name, reason=warning)

    async def _signed_code(self, reference: FunctionReference, request: Request, scope: RequestScope) -> bool | None:
        """Tell whether the package that layers come to is signed; None where no configuration asks for that."""
        if not request.get("Layers"):
            return None

        def work(records: Records) -> FunctionVersion | None:
            function = self._resolver.function(records, reference, scope)
            latest = self._resolver.version(records, reference, scope)
            return latest if function.code_signing_config is not None and latest.package_type == "Zip" else None

        latest = await self._state.read(scope.partition, work)
        return None if latest is None else not latest.is_hot and await self._packages.is_signed(latest.code_sha256)

    def _layers(self, records: Records, arns: Sequence[str], scope: RequestScope) -> list[Mapping[str, Any]]:
        """Give AWS's ``Layer`` for each ARN."""
        layers = self._find_layers(records, scope, arns)
        return [{"Arn": arn, "CodeSize": layer.code_size} for arn, layer in zip(arns, layers, strict=True)]

    async def _write(
        self,
        draft: Callable[[Records], FunctionVersion],
        request: Request,
        scope: RequestScope,
        frozen: Package | None = None,
    ) -> Response:
        """Write ``$LATEST`` as it was drafted, and publish it where the request says so."""

        def write(records: Records) -> FunctionVersion:
            stamped = replace(draft(records), last_modified=timestamp(), revision_id=new_revision())
            latest = in_progress(stamped)
            records.replace(VERSIONS, latest)
            request_preparation(records, latest)
            return publish(records, latest, self._limits, frozen=frozen) if request.get("Publish") else latest

        version = await self._state.write(scope.partition, write)
        self._tell(scope, version)
        return self._configurations.deployed(version, scope, version.version if version.number else None)

    async def _frozen(self, package: Package, request: Request) -> Package | None:
        """Make a package of a folder that is run in place, where the request publishes a version of it."""
        return await self._packages.freeze(package.hot_path) if package.hot_path and request.get("Publish") else None

    def _tell(self, scope: RequestScope, written: FunctionVersion) -> None:
        """Tell everybody of a change that is kept, and begin to prepare what it left to be prepared."""
        self._changes.publish(FunctionChanged(scope.partition, written.function))
        self._preparations.start(scope.partition, written.function, *{0, written.number})


def _first_version(name: str, request: Request) -> FunctionVersion:
    return FunctionVersion(
        function=name,
        role=request["Role"],
        package_type=request.get("PackageType", "Zip"),
        last_modified=timestamp(),
        revision_id=new_revision(),
    )


def _check_code_signing(
    records: Records, function: DeployedFunction, version: FunctionVersion, scope: RequestScope
) -> None:
    """Refuse a code signing configuration that is not there, or that a new function cannot have."""
    if function.code_signing_config is None:
        return
    if version.package_type == "Image":
        raise InvalidParameterValue("Code signing is not supported for functions created with container images.")
    config_of(records, function.code_signing_config, scope.partition)


def _signed_layers(records: Records, function: DeployedFunction, version: FunctionVersion) -> list[LayerVersion]:
    """Give the layers of a version whose signatures count, also those that were deleted since."""
    if function.code_signing_config is None:
        return []
    found = [records.get(LAYER_VERSIONS, *layer_key(layer["Arn"])) for layer in version.settings.get("Layers", ())]
    return [layer for layer in found if layer is not None]


def _check_deletable(qualifier: str | None) -> None:
    if qualifier == LATEST:
        raise InvalidParameterValue("$LATEST version cannot be deleted without deleting the function.")
    if qualifier is not None and not qualifier.isdecimal():
        raise InvalidParameterValue("Deletion of aliases is not currently supported.")


def _delete_all(records: Records, name: str) -> None:
    for kind in KINDS:
        if kind.of_function:
            records.delete(kind, name)
    records.delete(FUNCTIONS, name)


def _delete_version(records: Records, name: str, qualifier: str) -> None:
    naming = aliases_of_version(records.list(ALIASES, name), qualifier)
    if naming:
        raise ResourceConflict(
            "Unable to delete version because the following aliases reference it: "
            f"[{', '.join(alias.name for alias in naming)}]"
        )
    number = version_number(qualifier)
    if number is not None and records.delete(VERSIONS, name, number):
        records.delete(PREPARATIONS, name, number)
        forget_qualifier(records, name, qualifier)
