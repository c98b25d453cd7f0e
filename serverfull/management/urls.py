"""Function URLs: what is kept of them. Requests to them are not served yet.

On AWS a function URL is ``https://<url-id>.lambda-url.<region>.on.aws/``. Here it is a path of the host, below the
address under which the caller reached the API: a name of its own for each function would need DNS and certificates
that nobody has set up. So the same URL reads differently to callers who come by different addresses, and each can use
theirs.

All reading and writing runs in transactions on the store's thread.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import ALIASES, FUNCTIONS
from serverfull.domain.names import function_arn, shown
from serverfull.domain.urls import FUNCTION_URLS, FunctionUrl, function_url
from serverfull.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from serverfull.management.paging import read_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from types_boto3_lambda.type_defs import (
        CreateFunctionUrlConfigRequestTypeDef,
        DeleteFunctionUrlConfigRequestTypeDef,
        GetFunctionUrlConfigRequestTypeDef,
        ListFunctionUrlConfigsRequestTypeDef,
        UpdateFunctionUrlConfigRequestTypeDef,
    )

    from serverfull.domain.changes import Changes
    from serverfull.domain.names import FunctionReference, RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.operations import Operations, Response
    from serverfull.management.resolution import FunctionResolver


_ID_CHARACTERS = string.ascii_lowercase + string.digits
_METHODS = frozenset(("GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*"))
_ORIGIN = re.compile(r"\*|[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#@]+", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


class FunctionUrls:
    """The operations on function URLs."""

    def __init__(self, state: StateStore, resolver: FunctionResolver, changes: Changes) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "CreateFunctionUrlConfig": self.create,
            "GetFunctionUrlConfig": self.get,
            "UpdateFunctionUrlConfig": self.update,
            "DeleteFunctionUrlConfig": self.delete,
            "ListFunctionUrlConfigs": self.list,
        }

    async def create(self, request: CreateFunctionUrlConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Give a function, or one of its aliases, a URL.

        :raises ResourceNotFound: there is no such function or alias.
        :raises ResourceConflict: it has a URL already.
        :raises InvalidParameterValue: Cors has a method, an origin or a header that is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunctionUrlConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        _check_cors(request.get("Cors", {}))
        now = _now()
        url = FunctionUrl(
            function=reference.name,
            qualifier=reference.qualifier or "",
            url_id="".join(secrets.choice(_ID_CHARACTERS) for _ in range(32)),
            auth_type=request["AuthType"],
            cors=request.get("Cors", {}),
            invoke_mode=request.get("InvokeMode", "BUFFERED"),
            created=now,
            last_modified=now,
        )

        def work(records: Records) -> None:
            _check_exists(records, reference)
            if records.get(FUNCTION_URLS, *FUNCTION_URLS.key_of(url)) is not None:
                raise ResourceConflict(
                    f"Failed to create function url config for [functionArn = {_arn(url, scope)}]. "
                    "Error message:  FunctionUrlConfig exists for this Lambda function"
                )
            records.insert(FUNCTION_URLS, url)

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return {name: value for name, value in _described(url, scope).items() if name != "LastModifiedTime"}

    async def get(self, request: GetFunctionUrlConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Give the URL of a function or an alias.

        :raises ResourceNotFound: it has none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionUrlConfig.html
        """
        reference = self._resolver.reference(request, scope)
        url = await self._state.read(scope.partition, lambda records: _find(records, reference))
        return _described(url, scope)

    async def update(self, request: UpdateFunctionUrlConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Change who may call a URL and how; the URL itself stays.

        :raises ResourceNotFound: there is no such function or alias, or it has no URL.
        :raises InvalidParameterValue: Cors has a method, an origin or a header that is none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_UpdateFunctionUrlConfig.html
        """
        reference = await self._resolver.writable(request, scope)
        _check_cors(request.get("Cors", {}))

        def work(records: Records) -> FunctionUrl:
            _check_exists(records, reference)
            url = _find(records, reference)
            changed = replace(
                url,
                auth_type=request.get("AuthType", url.auth_type),
                cors=request.get("Cors", url.cors),
                invoke_mode=request.get("InvokeMode", url.invoke_mode),
                last_modified=_now(),
            )
            records.replace(FUNCTION_URLS, changed)
            return changed

        changed = await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return _described(changed, scope)

    async def delete(self, request: DeleteFunctionUrlConfigRequestTypeDef, scope: RequestScope) -> Response:
        """Take the URL of a function or an alias away, for good: a new one is another one.

        :raises ResourceNotFound: it has none.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_DeleteFunctionUrlConfig.html
        """
        reference = await self._resolver.writable(request, scope)

        def work(records: Records) -> None:
            url = _find(records, reference)
            records.delete(FUNCTION_URLS, *FUNCTION_URLS.key_of(url))

        await self._state.write(scope.partition, work)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return {}

    async def list(self, request: ListFunctionUrlConfigsRequestTypeDef, scope: RequestScope) -> Response:
        """List the URLs of a function: its own, then those of its aliases by their names.

        :raises ResourceNotFound: there is no such function.
        :raises InvalidParameterValue: the Marker is none that this operation gave.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionUrlConfigs.html
        """
        reference = self._resolver.reference(request, scope)
        page = read_page(request, str, str)
        if await self._resolver.registered(reference.name, scope) is not None:
            return {"FunctionUrlConfigs": []}

        def work(records: Records) -> Sequence[FunctionUrl]:
            _check_exists(records, reference._replace(qualifier=None))
            return records.list(FUNCTION_URLS, reference.name, after=page.after, limit=page.limit)

        cut = page.cut(await self._state.read(scope.partition, work), FUNCTION_URLS.key_of)
        return {"FunctionUrlConfigs": [_described(url, scope) for url in cut.items], "NextMarker": cut.next_marker}


def _check_exists(records: Records, reference: FunctionReference) -> None:
    exists = records.get(FUNCTIONS, reference.name) is not None
    if exists and reference.qualifier is not None:
        exists = records.get(ALIASES, reference.name, reference.qualifier) is not None
    if not exists:
        raise ResourceNotFound("Function does not exist")


def _find(records: Records, reference: FunctionReference) -> FunctionUrl:
    url = records.get(FUNCTION_URLS, reference.name, reference.qualifier or "")
    if url is None:
        raise ResourceNotFound("The resource you requested does not exist.")
    return url


def _check_cors(cors: Mapping[str, Any]) -> None:
    """Refuse what no browser would ever ask for; the model checks lengths alone.

    AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Cors.html
    """
    for method in cors.get("AllowMethods", ()):
        if method not in _METHODS:
            raise InvalidParameterValue(
                f"The method {shown(str(method))} in AllowMethods is none of {', '.join(sorted(_METHODS))}."
            )
    for origin in cors.get("AllowOrigins", ()):
        if origin is None or not _ORIGIN.fullmatch(origin):
            raise InvalidParameterValue(
                f"The origin {shown(str(origin))} in AllowOrigins is neither * nor a scheme and a host, such as "
                "https://www.example.com."
            )
    for member in ("AllowHeaders", "ExposeHeaders"):
        for header in cors.get(member, ()):
            if header is None or not _HEADER.fullmatch(header):
                raise InvalidParameterValue(f"{shown(str(header))} in {member} is not the name of a header.")


def _arn(url: FunctionUrl, scope: RequestScope) -> str:
    return function_arn(url.function, scope.account, scope.region, url.qualifier)


def _described(url: FunctionUrl, scope: RequestScope) -> Response:
    """Write a URL as AWS's FunctionUrlConfig: the one place that does."""
    return {
        "FunctionUrl": function_url(scope.base_url, url.url_id),
        "FunctionArn": _arn(url, scope),
        "AuthType": url.auth_type,
        "Cors": url.cors or None,
        "CreationTime": url.created,
        "LastModifiedTime": url.last_modified,
        "InvokeMode": url.invoke_mode,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
