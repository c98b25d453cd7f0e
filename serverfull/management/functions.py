"""ListFunctions, GetFunction and GetFunctionConfiguration for the functions of any fetcher.

The API's driver calls the methods with requests that are already checked against the AWS model, and lays out what they
return. Everything runs on the event loop, except for looking at source files, which a thread does once per function.
Gap: versions, aliases and layers do not exist here, and nothing is written.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import platform
import sys
import uuid
from bisect import bisect_right
from json import dumps, loads
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from serverfull.domain.names import (
    LATEST,
    check_reachable,
    function_arn,
    function_not_found,
    parse_function_reference,
    partition_of,
)
from serverfull.errors import InvalidParameterValue, NotFoundError
from serverfull.management.sources import SourceCode, read_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from serverfull.config import FunctionSettings
    from serverfull.domain.functions import Function
    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.interfaces import Fetcher

Request: TypeAlias = "dict[str, Any]"
Response: TypeAlias = "dict[str, Any]"

PAGE_SIZE = 50
"""Functions in one answer of ListFunctions at most, whatever MaxItems says, as in AWS."""

EPHEMERAL_STORAGE_MB = 512
"""AWS's default. Functions share the host's own /tmp, and nothing limits it."""

_REVISIONS = uuid.UUID("8e1f1f2e-93a5-4e62-9f43-5a7a7b5e6d10")
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}

# What AWS leaves out of ListFunctions; its page says to call GetFunction for these.
_NOT_LISTED = ("State", "StateReason", "StateReasonCode", "LastUpdateStatus", "RuntimeVersionConfig")


class Functions:
    """The read operations on functions.

    :param fetcher: where functions come from.
    :param settings: what functions have that do not say otherwise.
    :param state_of: says why the function of a name is Failed; None where it is Active.
    """

    def __init__(self, fetcher: Fetcher, settings: FunctionSettings, state_of: Callable[[str], str | None]) -> None:
        self._fetcher = fetcher
        self._settings = settings
        self._state_of = state_of
        self._sources: WeakKeyDictionary[Function, SourceCode] = WeakKeyDictionary()

    def operations(self) -> Mapping[str, Callable[[Request, RequestScope], Awaitable[Response]]]:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "ListFunctions": self.list_functions,
            "GetFunction": self.get_function,
            "GetFunctionConfiguration": self.get_function_configuration,
        }

    async def list_functions(self, request: Request, scope: RequestScope) -> Response:
        """List functions by name, at most 50 at a time.

        ``FunctionVersion=ALL`` gives the same functions with qualified ARNs, for ``$LATEST`` is the only version.
        ``MasterRegion`` asks for replicas of Lambda@Edge, and there are none.

        :raises InvalidParameterValue: the Marker is none that this operation gave, or MasterRegion came without
            ``FunctionVersion=ALL``.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctions.html
        """
        every_version = request.get("FunctionVersion") == "ALL"
        after = _read_marker(request.get("Marker"))
        if "MasterRegion" in request:
            if not every_version:
                raise InvalidParameterValue("FunctionVersion must be set to ALL when MasterRegion is specified.")
            return {"Functions": []}
        functions = await self._fetcher.list()
        names = sorted(functions)
        start = 0 if after is None else bisect_right(names, after)
        page = names[start : start + min(request.get("MaxItems", PAGE_SIZE), PAGE_SIZE)]
        await self._read_sources(functions[name] for name in page)
        qualifier = LATEST if every_version else None
        response: Response = {"Functions": [self._listed(name, functions[name], scope, qualifier) for name in page]}
        if start + len(page) < len(names):
            response["NextMarker"] = _write_marker(page[-1])
        return response

    async def get_function(self, request: Request, scope: RequestScope) -> Response:
        """Give the configuration of a function, where its code lies, its tags and its reserved concurrency.

        :raises NotFoundError: there is no such function, or no such version of it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
        """
        reference, function = await self._fetch(request, scope)
        source = self._sources[function]
        response: Response = {
            "Configuration": self._configuration(
                reference.name, function, _account_of(reference, scope), scope.region, reference.qualifier
            ),
            "Code": {"RepositoryType": self._fetcher.source_of(reference.name), "Location": source.location},
        }
        if function.tags:
            response["Tags"] = dict(function.tags)
        if function.max_concurrency is not None:
            response["Concurrency"] = {"ReservedConcurrentExecutions": function.max_concurrency}
        return response

    async def get_function_configuration(self, request: Request, scope: RequestScope) -> Response:
        """Give the configuration of a function.

        :raises NotFoundError: there is no such function, or no such version of it.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html
        """
        reference, function = await self._fetch(request, scope)
        return self._configuration(
            reference.name, function, _account_of(reference, scope), scope.region, reference.qualifier
        )

    async def _fetch(self, request: Request, scope: RequestScope) -> tuple[FunctionReference, Function]:
        reference = parse_function_reference(request["FunctionName"], request.get("Qualifier"))
        check_reachable(reference, scope.account if scope.account_known else None, scope.region)
        try:
            function = await self._fetcher.fetch(reference.name, reference.qualifier)
        except NotFoundError:
            account = _account_of(reference, scope)
            raise function_not_found(reference.name, account, scope.region, reference.qualifier) from None
        await self._read_sources([function])
        return reference, function

    async def _read_sources(self, functions: Iterable[Function]) -> None:
        missing = [function for function in functions if function not in self._sources]
        if missing:
            found = await asyncio.to_thread(lambda: [read_source(function) for function in missing])
            self._sources.update(zip(missing, found, strict=True))

    def _listed(self, name: str, function: Function, scope: RequestScope, qualifier: str | None) -> Response:
        configuration = self._configuration(name, function, scope.account, scope.region, qualifier)
        return {key: value for key, value in configuration.items() if key not in _NOT_LISTED}

    def _configuration(
        self, name: str, function: Function, account: str, region: str, qualifier: str | None
    ) -> Response:
        """Write a function as AWS's FunctionConfiguration: the one place that does."""
        source = self._sources[function]
        settings = self._settings
        configuration: Response = {
            "FunctionName": name,
            "FunctionArn": function_arn(name, account, region, qualifier),
            "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
            "Role": f"arn:{partition_of(region)}:iam::{account}:role/serverfull",
            "Handler": function.handler_name,
            "CodeSize": source.size_bytes,
            "Description": function.description,
            "Timeout": math.ceil(function.timeout or settings.timeout),
            "MemorySize": function.memory_size or settings.memory_size,
            "LastModified": f"{source.changed:%Y-%m-%dT%H:%M:%S}.{source.changed.microsecond // 1000:03}+0000",
            "CodeSha256": source.sha256,
            "Version": LATEST,
            "TracingConfig": {"Mode": "PassThrough"},
            "PackageType": "Zip",
            "Architectures": [architecture()],
            "EphemeralStorage": {"Size": EPHEMERAL_STORAGE_MB},
            "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
            "LoggingConfig": _logging_config(name, function),
        }
        if function.environment:
            configuration["Environment"] = {"Variables": dict(function.environment)}
        configuration["RevisionId"] = _revision_of(configuration)
        return configuration | _state(self._state_of(name)) | {"RuntimeVersionConfig": _runtime_version(region)}


def architecture() -> str:
    """Tell the machine's architecture by AWS's name for it, or by its own where AWS has none."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def _account_of(reference: FunctionReference, scope: RequestScope) -> str:
    # An account that the caller spells out beats one that was only assumed.
    return scope.account if scope.account_known or reference.account is None else reference.account


def _logging_config(name: str, function: Function) -> Response:
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"} if function.log_format == "JSON" else {}
    return {"LogFormat": function.log_format, "LogGroup": f"/aws/lambda/{name}"} | levels


def _state(failure: str | None) -> Response:
    state: Response = {"LastUpdateStatus": "Successful", "State": "Active"}
    if failure is not None:
        state |= {"State": "Failed", "StateReason": failure, "StateReasonCode": "FunctionError"}
    return state


def _runtime_version(region: str) -> Response:
    # AWS's ids are hashes of the runtime's image. Ours is one of the interpreter, and so changes when it is updated.
    identity = hashlib.sha256(f"{sys.implementation.name} {sys.version}".encode()).hexdigest()
    return {"RuntimeVersionArn": f"arn:{partition_of(region)}:lambda:{region}::runtime:{identity}"}


def _revision_of(configuration: Response) -> str:
    """Derive an id that is the same as long as code and configuration are, over restarts and on every host."""
    content = {key: value for key, value in configuration.items() if key not in ("FunctionArn", "LastModified", "Role")}
    return str(uuid.uuid5(_REVISIONS, dumps(content, sort_keys=True)))


def _write_marker(name: str) -> str:
    return base64.urlsafe_b64encode(dumps({"after": name}).encode()).decode("ascii")


def _read_marker(marker: str | None) -> str | None:
    """Read what `_write_marker` wrote; the name need not exist any more."""
    if not marker:
        return None
    try:
        after = loads(base64.b64decode(marker, altchars=b"-_", validate=True))["after"]
    except (ValueError, KeyError, TypeError, RecursionError):
        after = None
    if not isinstance(after, str):
        raise InvalidParameterValue("The Marker is not one that ListFunctions returned.")
    return after
