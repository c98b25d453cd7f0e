"""ListFunctions, GetFunction and GetFunctionConfiguration, for deployed functions and for the operator's own.

The API's driver calls the methods with requests that are already checked against the AWS model, and lays out what they
return. Everything runs on the event loop, except for transactions, and for looking at the source files of the
operator's functions, which a thread does once per function.
"""

from __future__ import annotations

import asyncio
from heapq import nsmallest
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from serverfull.domain.deployed import FUNCTIONS, LATEST_NUMBER, VERSIONS, DeployedFunction, FunctionVersion
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.names import LATEST, FunctionReference, function_not_found
from serverfull.errors import InvalidParameterValue, NotFoundError
from serverfull.management.configuration import listed, resolved_image
from serverfull.management.packages import KMS_KEY
from serverfull.management.paging import Page, read_page
from serverfull.management.sources import read_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from types_boto3_lambda.type_defs import (
        GetFunctionConfigurationRequestTypeDef,
        GetFunctionRequestTypeDef,
        ListFunctionsRequestTypeDef,
    )

    from serverfull.domain.names import RequestScope
    from serverfull.domain.records import KeyPart
    from serverfull.domain.source_code import SourceCode
    from serverfull.interfaces import CodeStore, Fetcher, Records, StateStore
    from serverfull.management.configuration import Configurations
    from serverfull.management.operations import Operations, Response
    from serverfull.management.resolution import FunctionResolver


CODE_URL_SECONDS = 600
"""How long the URL of GetFunction downloads the code, as on AWS."""


class Functions:
    """The read operations on functions.

    :param registered: the operator's own functions; each hides a deployed one of its name.
    :param code: gives the URLs of packages.
    :param configurations: writes the answers.
    """

    def __init__(
        self,
        state: StateStore,
        resolver: FunctionResolver,
        *,
        registered: Fetcher,
        code: CodeStore,
        configurations: Configurations,
    ) -> None:
        self._state = state
        self._resolver = resolver
        self._registered = registered
        self._code = code
        self._configurations = configurations
        self._sources: WeakKeyDictionary[Function, SourceCode] = WeakKeyDictionary()

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "ListFunctions": self.list_functions,
            "GetFunction": self.get_function,
            "GetFunctionConfiguration": self.get_function_configuration,
        }

    async def list_functions(self, request: ListFunctionsRequestTypeDef, scope: RequestScope) -> Response:
        """List functions by name, at most 50 at a time; with ``FunctionVersion=ALL`` every version of them.

        ``MasterRegion`` asks for replicas of Lambda@Edge, and there are none.

        :raises InvalidParameterValue: the Marker is none that this operation gave, or MasterRegion came without
            ``FunctionVersion=ALL``.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html
        """
        every_version = request.get("FunctionVersion") == "ALL"
        page = read_page(request, str, int)
        if "MasterRegion" in request:
            if not every_version:
                raise InvalidParameterValue("FunctionVersion must be set to ALL when MasterRegion is specified.")
            return {"Functions": []}
        registered = await self._registered.at(scope.partition).list()
        found: dict[tuple[KeyPart, ...], Function | FunctionVersion] = {
            (name, LATEST_NUMBER): registered[name] for name in _first_names(registered, page)
        }

        def work(records: Records) -> list[FunctionVersion]:
            return _deployed_versions(records, page, registered, every_version=every_version)

        found.update((VERSIONS.key_of(version), version) for version in await self._state.read(scope.partition, work))
        cut = page.cut(sorted(found)[: page.limit], lambda key: key)
        await self._read_sources(function for key in cut.items if isinstance(function := found[key], Function))
        functions = [self._listed(str(key[0]), found[key], scope, every_version) for key in cut.items]
        return {"Functions": functions, "NextMarker": cut.next_marker}

    async def get_function(self, request: GetFunctionRequestTypeDef, scope: RequestScope) -> Response:
        """Give the configuration of a function, where its code lies, its tags and its reserved concurrency.

        :raises NotFoundError: there is no such function, or no such version of it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
        """
        reference = self._resolver.reference(request, scope)
        own = await self._own(reference, scope)
        if own is not None:
            configuration = self._own_configuration(reference, own, scope)
            location = _own_location(own, await self._source_of(reference.name, scope), self._sources[own])
            return _function_response(configuration, location, own.tags, own.max_concurrency)

        def work(records: Records) -> tuple[FunctionVersion, DeployedFunction]:
            version = self._resolver.version(records, reference, scope)
            return version, self._resolver.function(records, reference, scope)

        version, function = await self._state.read(scope.partition, work)
        configuration = self._configurations.deployed(version, scope, reference.qualifier)
        location = await self._location(version, scope)
        return _function_response(configuration, location, function.tags, function.reserved_concurrency)

    async def get_function_configuration(
        self, request: GetFunctionConfigurationRequestTypeDef, scope: RequestScope
    ) -> Response:
        """Give the configuration of a function.

        :raises NotFoundError: there is no such function, or no such version of it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html
        """
        return await self.configuration(self._resolver.reference(request, scope), scope)

    async def configuration(self, reference: FunctionReference, scope: RequestScope) -> Response:
        """Give the configuration of what a reference means, for other operations too.

        :raises NotFoundError: it means nothing.
        """
        own = await self._own(reference, scope)
        if own is not None:
            return self._own_configuration(reference, own, scope)
        version = await self._state.read(
            scope.partition, lambda records: self._resolver.version(records, reference, scope)
        )
        return self._configurations.deployed(version, scope, reference.qualifier)

    async def _own(self, reference: FunctionReference, scope: RequestScope) -> Function | None:
        """Give the operator's own function of that name, as far as the qualifier goes.

        :raises NotFoundError: there is one, and it has no such version.
        """
        if await self._resolver.registered(reference.name, scope) is None:
            return None
        try:
            function = await self._registered.at(scope.partition).fetch(reference.name, reference.qualifier)
        except NotFoundError:
            account = _account_of(reference, scope)
            raise function_not_found(reference.name, account, scope.region, reference.qualifier) from None
        await self._read_sources([function])
        return function

    async def _source_of(self, name: str, scope: RequestScope) -> str:
        view = self._registered.at(scope.partition)
        await view.fetch(name)  # a chain knows where a function comes from that it has just given
        return view.source_of(name)

    def _own_configuration(self, reference: FunctionReference, function: Function, scope: RequestScope) -> Response:
        account = _account_of(reference, scope)
        source = self._sources[function]
        return self._configurations.registered(
            reference.name, function, source, account, scope.region, reference.qualifier
        )

    async def _read_sources(self, functions: Iterable[Function]) -> None:
        missing = [function for function in functions if function not in self._sources]
        if missing:
            found = await asyncio.to_thread(lambda: [read_source(function) for function in missing])
            self._sources.update(zip(missing, found, strict=True))

    def _listed(
        self, name: str, found: Function | FunctionVersion, scope: RequestScope, every_version: bool
    ) -> Response:
        if isinstance(found, Function):
            qualifier = LATEST if every_version else None
            return listed(
                self._configurations.registered(
                    name, found, self._sources[found], scope.account, scope.region, qualifier
                )
            )
        return listed(self._configurations.deployed(found, scope, found.version if every_version else None))

    async def _location(self, version: FunctionVersion, scope: RequestScope) -> Response:
        if version.image_uri is not None:
            return {
                "RepositoryType": "ECR",
                "ImageUri": version.image_uri,
                "ResolvedImageUri": resolved_image(version),
            }
        if version.is_hot:
            return {"RepositoryType": "S3", "Location": f"file://{version.hot_path}"}
        url = await self._code.url(version.code_sha256, CODE_URL_SECONDS)
        return {
            "RepositoryType": "S3",
            "Location": scope.base_url + url if url.startswith("/") else url,
            KMS_KEY: version.settings.get(KMS_KEY),
        }


def _own_location(function: Function, source: str, code: SourceCode) -> Response:
    """Say where the code of the operator's own function lies; what is an image is said as AWS says it."""
    handler = function.handler
    if isinstance(handler, DeployedHandler) and handler.image_uri:
        return {"RepositoryType": source, "ImageUri": code.location, "ResolvedImageUri": handler.image_uri}
    return {"RepositoryType": source, "Location": code.location}


def _first_names(registered: Mapping[str, Function], page: Page) -> list[str]:
    """Give as many of the operator's functions as a page may need."""
    return nsmallest(page.limit, (name for name in registered if page.after is None or (name, 0) > page.after))


def _deployed_versions(
    records: Records, page: Page, registered: Mapping[str, Function], *, every_version: bool
) -> list[FunctionVersion]:
    """Give as many versions as a page may need. What it costs depends on the page alone, not on how many there are.

    Those that the operator's own functions hide are left out.
    """
    found: list[FunctionVersion] = []
    after = page.after
    while len(found) < page.limit:
        versions = _versions_behind(records, after, page.limit, every_version=every_version)
        found += [version for version in versions if version.function not in registered]
        if len(versions) < page.limit:
            break
        after = VERSIONS.key_of(versions[-1])
    return found[: page.limit]


def _versions_behind(
    records: Records, after: tuple[KeyPart, ...] | None, limit: int, *, every_version: bool
) -> Sequence[FunctionVersion]:
    if every_version:
        return records.list(VERSIONS, after=after, limit=limit)
    functions = records.list(FUNCTIONS, after=after and after[:1], limit=limit)
    return [version for each in functions if (version := records.get(VERSIONS, each.name, LATEST_NUMBER)) is not None]


def _function_response(
    configuration: Response, location: Response, tags: Mapping[str, str], reserved: int | None
) -> Response:
    response: Response = {"Configuration": configuration, "Code": location}
    if tags:
        response["Tags"] = dict(tags)
    if reserved is not None:
        response["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
    return response


def _account_of(reference: FunctionReference, scope: RequestScope) -> str:
    # An account that the caller spells out beats one that was only assumed.
    return scope.account if scope.account_known or reference.account is None else reference.account
