"""Layers and their versions.

Everything that touches state runs in transactions on the store's thread; packages are checked and kept before. Gap:
layers of other accounts cannot be used.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from serverfull.domain.checksums import code_sha256
from serverfull.domain.deployed import VERSIONS
from serverfull.domain.hot_paths import SHA256
from serverfull.domain.layers import LAYER_VERSIONS, LAYERS, Layer, LayerVersion, layer_arn, layer_key
from serverfull.domain.names import is_partition_of, partition_of
from serverfull.errors import InvalidParameterValue, RequestRefused, ResourceNotFound
from serverfull.management.account import check_code_storage
from serverfull.management.paging import read_page
from serverfull.management.stamps import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from types_boto3_lambda.type_defs import (
        DeleteLayerVersionRequestTypeDef,
        GetLayerVersionByArnRequestTypeDef,
        GetLayerVersionRequestTypeDef,
        ListLayersRequestTypeDef,
        ListLayerVersionsRequestTypeDef,
        PublishLayerVersionRequestTypeDef,
    )

    from serverfull.domain.concurrency import AccountLimits
    from serverfull.domain.names import RequestScope
    from serverfull.domain.records import Partition
    from serverfull.interfaces import CodeStore, Records, StateStore
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.packages import PackageIntake


URL_SECONDS = 600
"""How long a link to a layer's package is good, as on AWS."""

_ARN = re.compile(r"arn:([^:]*):lambda:([^:]+):(\d{12}):layer:([a-zA-Z0-9-_]+)(?::([0-9]{1,18}))?", re.ASCII)


class Layers:
    """The operations on layers.

    :param code: keeps packages.
    :param intake: reads packages from requests and from S3, and refuses bad ones.
    :param limits: the room that an account has for packages.
    """

    def __init__(self, state: StateStore, code: CodeStore, *, intake: PackageIntake, limits: AccountLimits) -> None:
        self._state = state
        self._code = code
        self._intake = intake
        self._limits = limits

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "PublishLayerVersion": self.publish,
            "GetLayerVersion": self.get,
            "GetLayerVersionByArn": self.get_by_arn,
            "ListLayerVersions": self.list_versions,
            "ListLayers": self.list,
            "DeleteLayerVersion": self.delete,
        }

    async def publish(self, request: PublishLayerVersionRequestTypeDef, scope: RequestScope) -> Response:
        """Make a new version of a layer, and the layer with its first one.

        :raises InvalidParameterValue: there is no package, or none that can be used.
        :raises RequestEntityTooLarge: the package in the request is too large.
        :raises CodeStorageExceeded: the account has no room for it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PublishLayerVersion.html
        """
        name = layer_name(request["LayerName"], scope)
        package = await self._intake.read(request["Content"], "Zip")
        size = len(package.content or b"")
        await self._state.read(scope.partition, lambda records: check_code_storage(records, size, self._limits))
        await self._intake.keep(package)
        version = LayerVersion(
            layer=name,
            number=0,
            code_sha256=package.sha256,
            code_size=size,
            unzipped_size=package.unzipped_size,
            hot_path=package.hot_path,
            created=timestamp(),
            description=request.get("Description", ""),
            license_info=request.get("LicenseInfo"),
            compatible_runtimes=request.get("CompatibleRuntimes"),
            compatible_architectures=request.get("CompatibleArchitectures"),
            signed=package.signed,
        )

        def work(records: Records) -> LayerVersion:
            check_code_storage(records, version.code_size, self._limits)
            return _add(records, version)

        return await self._described_whole(await self._state.write(scope.partition, work), scope)

    async def get(self, request: GetLayerVersionRequestTypeDef, scope: RequestScope) -> Response:
        """Give a version of a layer, with a link to its package.

        :raises ResourceNotFound: there is none.
        :raises InvalidParameterValue: the number is below 1.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetLayerVersion.html
        """
        return await self._get(request["LayerName"], request["VersionNumber"], scope)

    async def get_by_arn(self, request: GetLayerVersionByArnRequestTypeDef, scope: RequestScope) -> Response:
        """Give a version of a layer by its ARN, with a link to its package.

        :raises ResourceNotFound: there is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetLayerVersionByArn.html
        """
        match = _ARN.fullmatch(request["Arn"])
        if match is None or match[5] is None:
            _refuse_unknown()  # one of AWS's own layers, which no host but AWS has, or a number that none has
        return await self._get(request["Arn"].rpartition(":")[0], int(match[5]), scope)

    async def list_versions(self, request: ListLayerVersionsRequestTypeDef, scope: RequestScope) -> Response:
        """List the versions of a layer, the newest first; none where there is no such layer.

        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListLayerVersions.html
        """
        name = layer_name(request["LayerName"], scope)
        page = read_page(request, int)
        versions = await self._state.read(scope.partition, lambda records: records.list(LAYER_VERSIONS, name))
        below = [
            version
            for version in reversed(versions)
            if _matches(version, request) and (page.after is None or version.number < int(page.after[0]))
        ]
        cut = page.cut(below[: page.limit], lambda version: (version.number,))
        return {
            "LayerVersions": [_described(version, scope.partition) for version in cut.items],
            "NextMarker": cut.next_marker,
        }

    async def list(self, request: ListLayersRequestTypeDef, scope: RequestScope) -> Response:
        """List layers by name, each with the newest of its versions that matches.

        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListLayers.html
        """
        page = read_page(request, str)

        def work(records: Records) -> Sequence[LayerVersion]:
            after = None if page.after is None else str(page.after[0])
            return _newest(records, after, page.limit, lambda version: _matches(version, request))

        cut = page.cut(await self._state.read(scope.partition, work), lambda version: (version.layer,))
        listed = [
            {
                "LayerName": version.layer,
                "LayerArn": layer_arn(version.layer, scope.partition),
                "LatestMatchingVersion": _described(version, scope.partition),
            }
            for version in cut.items
        ]
        return {"Layers": listed, "NextMarker": cut.next_marker}

    async def delete(self, request: DeleteLayerVersionRequestTypeDef, scope: RequestScope) -> Response:
        """Delete a version of a layer; that there is none is fine. Functions that have it keep it.

        :raises InvalidParameterValue: the number is below 1.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteLayerVersion.html
        """
        number = _checked_number(request["VersionNumber"])
        name = layer_name(request["LayerName"], scope)

        def work(records: Records) -> None:
            version = records.get(LAYER_VERSIONS, name, number)
            if version is not None and not version.deleted:
                records.replace(LAYER_VERSIONS, replace(version, deleted=True, statements={}))
                forget_deleted(records)

        await self._state.write(scope.partition, work)
        return {}

    async def _get(self, layer: str, number: int, scope: RequestScope) -> Response:
        name, number = layer_name(layer, scope), _checked_number(number)
        version = await self._state.read(scope.partition, lambda records: find_version(records, name, number))
        if version is None:
            _refuse_unknown()
        return await self._described_whole(version, scope)

    async def _described_whole(self, version: LayerVersion, scope: RequestScope) -> Response:
        """Write a version as AWS answers it when it is asked for by itself."""
        if version.hot_path:
            content: Response = {"Location": f"file://{version.hot_path}", "CodeSha256": SHA256, "CodeSize": 0}
            arn = layer_arn(version.layer, scope.partition)
            return _described(version, scope.partition) | {"LayerArn": arn, "Content": content}
        url = await self._code.url(version.code_sha256, URL_SECONDS)
        return _described(version, scope.partition) | {
            "LayerArn": layer_arn(version.layer, scope.partition),
            "Content": {
                "Location": scope.base_url + url if url.startswith("/") else url,
                "CodeSha256": code_sha256(version.code_sha256),
                "CodeSize": version.code_size,
            },
        }


def find_layers(records: Records, scope: RequestScope, arns: Iterable[str]) -> list[LayerVersion]:
    """Find the versions of layers that a function is to have.

    :param arns: of layer versions; how many, and whether they go together, is checked before.
    :raises InvalidParameterValue: one does not exist.
    :raises RequestRefused: one is another account's, or AWS's own.
    """
    return [_usable(records, arn, scope) for arn in arns]


def forget_deleted(records: Records) -> None:
    """Forget the deleted versions of layers that no function has any more, so that their packages can go.

    Called when a version is deleted, and by the host before it looks which packages are in use.
    """
    deleted = [version for version in records.list(LAYER_VERSIONS) if version.deleted]
    if not deleted:
        return
    # By their keys: an ARN may have been given with zeros before the number, or with an account that nobody checked.
    used = {
        layer_key(layer["Arn"]) for function in records.list(VERSIONS) for layer in function.settings.get("Layers", ())
    }
    for version in deleted:
        if (version.layer, version.number) not in used:
            records.delete(LAYER_VERSIONS, version.layer, version.number)


def _usable(records: Records, arn: str, scope: RequestScope) -> LayerVersion:
    match = _ARN.fullmatch(arn)
    if match is None or match[5] is None or (scope.account_known and match[3] != scope.account):
        raise RequestRefused(
            f"User: arn:{partition_of(scope.region)}:iam::{scope.account}:root is not authorized to perform: "
            f"lambda:GetLayerVersion on resource: {arn} because no resource-based policy allows the "
            "lambda:GetLayerVersion action"
        )
    here = match[2] == scope.region and is_partition_of(match[1], match[2])
    found = find_version(records, match[4], int(match[5])) if here else None
    if found is None:
        raise InvalidParameterValue(f"Layer version {arn} does not exist.")
    return found


def layer_name(name_or_arn: str, scope: RequestScope) -> str:
    """Read a layer's name or ARN.

    :raises ResourceNotFound: it is the ARN of another account, region or partition of AWS.
    """
    match = _ARN.fullmatch(name_or_arn)
    if match is None:
        return name_or_arn
    partition, region, account, name, _ = match.groups()
    elsewhere = region != scope.region or (scope.account_known and account != scope.account)
    if elsewhere or not is_partition_of(partition, region):
        _refuse_unknown()
    return name


def _checked_number(number: int) -> int:
    if number < 1:
        raise InvalidParameterValue("Layer Version Cannot be less than 1")
    return number


def _refuse_unknown() -> NoReturn:
    raise ResourceNotFound("The resource you requested does not exist.")


def find_version(records: Records, name: str, number: int) -> LayerVersion | None:
    """Give a version that is not deleted, or None."""
    version = records.get(LAYER_VERSIONS, name, number)
    return None if version is None or version.deleted else version


def _add(records: Records, version: LayerVersion) -> LayerVersion:
    """Give a version the next number of its layer, and keep both."""
    layer = records.get(LAYERS, version.layer)
    number = 1 if layer is None else layer.last_version + 1
    (records.insert if layer is None else records.replace)(LAYERS, Layer(name=version.layer, last_version=number))
    numbered = replace(version, number=number)
    records.insert(LAYER_VERSIONS, numbered)
    return numbered


def _matches(version: LayerVersion, request: Request) -> bool:
    """Tell whether a version is to be listed; one that says nothing of runtimes is compatible with none."""
    if version.deleted:
        return False
    runtime, architecture = request.get("CompatibleRuntime"), request.get("CompatibleArchitecture")
    return (runtime is None or runtime in (version.compatible_runtimes or ())) and (
        architecture is None or architecture in (version.compatible_architectures or ())
    )


def _newest(
    records: Records, after: str | None, limit: int, matches: Callable[[LayerVersion], bool]
) -> list[LayerVersion]:
    """Give the newest version that matches of each layer that has one, behind a name and up to a limit."""
    found: list[LayerVersion] = []
    while len(found) < limit:
        layers = records.list(LAYERS, after=None if after is None else (after,), limit=limit)
        for layer in layers:
            last = records.get(LAYER_VERSIONS, layer.name, layer.last_version)
            # The last one, as a rule: then the others need not be read.
            versions = [last] if last is not None and matches(last) else records.list(LAYER_VERSIONS, layer.name)
            found.extend([version for version in versions if matches(version)][-1:])
        if len(layers) < limit:
            break
        after = layers[-1].name
    return found[:limit]


def _described(version: LayerVersion, partition: Partition) -> Response:
    """Write a version as AWS's LayerVersionsListItem: the one place that does."""
    return {
        "LayerVersionArn": layer_arn(version.layer, partition, version.number),
        "Version": version.number,
        "Description": version.description,
        "CreatedDate": version.created,
        "CompatibleRuntimes": version.compatible_runtimes,
        "CompatibleArchitectures": version.compatible_architectures,
        "LicenseInfo": version.license_info,
    }
