"""Published versions: ``$LATEST`` frozen under a number.

`publish` does it inside a transaction, for PublishVersion and for the ``Publish`` of CreateFunction and
UpdateFunctionCode.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from serverfull.domain.changes import FunctionChanged
from serverfull.domain.deployed import FUNCTIONS, LATEST_NUMBER, VERSIONS, FunctionVersion
from serverfull.domain.names import LATEST, FunctionReference, function_arn
from serverfull.errors import FunctionNotReady, InvalidParameterValue, ResourceConflict
from serverfull.management.account import check_code_storage
from serverfull.management.configuration import listed
from serverfull.management.contents import content_of
from serverfull.management.paging import read_page
from serverfull.management.preparation import is_settled, pending, request_preparation
from serverfull.management.resolution import check_not_updating
from serverfull.management.stamps import check_revision, new_revision
from serverfull.management.validation import check_latest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from types_boto3_lambda.type_defs import ListVersionsByFunctionRequestTypeDef, PublishVersionRequestTypeDef

    from serverfull.domain.changes import Changes
    from serverfull.domain.concurrency import AccountLimits
    from serverfull.domain.names import RequestScope
    from serverfull.interfaces import Records, StateStore
    from serverfull.management.configuration import Configurations
    from serverfull.management.functions import Functions
    from serverfull.management.operations import Operations, Request, Response
    from serverfull.management.packages import Package, PackageIntake
    from serverfull.management.paging import Page
    from serverfull.management.preparation import Preparations
    from serverfull.management.resolution import FunctionResolver


class Versions:
    """The operations on versions.

    :param configurations: writes the answers.
    :param functions: describes the operator's own functions.
    :param packages: makes packages of folders that are run in place.
    :param preparations: prepares versions that are published before ``$LATEST`` was ready.
    :param limits: the room that an account has for packages.
    """

    def __init__(
        self,
        state: StateStore,
        resolver: FunctionResolver,
        changes: Changes,
        *,
        configurations: Configurations,
        functions: Functions,
        packages: PackageIntake,
        preparations: Preparations,
        limits: AccountLimits,
    ) -> None:
        self._state = state
        self._resolver = resolver
        self._changes = changes
        self._configurations = configurations
        self._functions = functions
        self._packages = packages
        self._preparations = preparations
        self._limits = limits

    def operations(self) -> Operations:
        """Give the methods by the names that the AWS model has for them."""
        return {
            "PublishVersion": self.publish_version,
            "ListVersionsByFunction": self.list_versions_by_function,
        }

    async def publish_version(self, request: PublishVersionRequestTypeDef, scope: RequestScope) -> Response:
        """Freeze ``$LATEST`` under the next number, or give the last version where nothing has changed since.

        :raises InvalidParameterValue: CodeSha256 is not that of ``$LATEST``.
        :raises PreconditionFailed: RevisionId is not that of ``$LATEST``.
        :raises ResourceConflict: ``$LATEST`` is being made or changed.
        :raises CodeStorageExceeded: the account has no room for another version of the package.

        A function that runs from a folder in place has what is in that now as the package of the version.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html
        """
        reference = await self._resolver.writable(request, scope)
        check_latest(reference)
        check_publish_to(request)
        arn = function_arn(reference.name, scope.account, scope.region)

        def work(records: Records) -> FunctionVersion:
            latest = self._resolver.version(records, FunctionReference(reference.name), scope)
            check_revision(request.get("RevisionId"), latest.revision_id)
            check_not_updating(latest, arn)
            self._check_code(request.get("CodeSha256"), latest, scope)
            return publish(records, latest, self._limits, request.get("Description"), frozen)

        frozen = await self._frozen(reference.name, scope)
        version = await self._state.write(scope.partition, work)
        if not is_settled(version):
            self._preparations.start(scope.partition, reference.name, version.number)
        self._changes.publish(FunctionChanged(scope.partition, reference.name))
        return self._configurations.deployed(version, scope, version.version)

    async def list_versions_by_function(
        self, request: ListVersionsByFunctionRequestTypeDef, scope: RequestScope
    ) -> Response:
        """List the versions of a function, ``$LATEST`` first, at most 50 at a time.

        :raises NotFoundError: there is no such function.

        AWS: https://docs.aws.amazon.com/lambda/latest/api/API_ListVersionsByFunction.html
        """
        reference = self._resolver.reference(request, scope)
        page = read_page(request, str, int)
        own = await self._resolver.published(reference.name, scope)
        if own is not None:
            return await self._own(reference.name, own.versions, page, scope)

        def work(records: Records) -> Sequence[FunctionVersion]:
            self._resolver.function(records, FunctionReference(reference.name), scope)
            return records.list(VERSIONS, reference.name, after=page.after, limit=page.limit)

        cut = page.cut(await self._state.read(scope.partition, work), VERSIONS.key_of)
        versions = [self._configurations.deployed(version, scope, version.version) for version in cut.items]
        return {"Versions": [listed(version) for version in versions], "NextMarker": cut.next_marker}

    async def _own(self, name: str, numbers: Sequence[int], page: Page, scope: RequestScope) -> Response:
        """List the versions of a function of the operator's own; one that cannot be given is left out."""
        behind = [number for number in (LATEST_NUMBER, *numbers) if page.after is None or (name, number) > page.after]
        cut = page.cut(behind[: page.limit], lambda number: (name, number))
        references = [FunctionReference(name, str(number) if number else LATEST) for number in cut.items]
        found = await asyncio.gather(*(self._configuration(reference, scope) for reference in references))
        return {"Versions": [listed(one) for one in found if one is not None], "NextMarker": cut.next_marker}

    async def _configuration(self, reference: FunctionReference, scope: RequestScope) -> Response | None:
        try:
            return await self._functions.configuration(reference, scope)
        except FunctionNotReady:
            return None

    async def _frozen(self, name: str, scope: RequestScope) -> Package | None:
        """Make a package of the folder that ``$LATEST`` runs from in place, if it does."""
        latest = await self._state.read(
            scope.partition, lambda records: self._resolver.version(records, FunctionReference(name), scope)
        )
        return await self._packages.freeze(latest.hot_path) if latest.is_hot else None

    def _check_code(self, code_sha256: str | None, latest: FunctionVersion, scope: RequestScope) -> None:
        current = self._configurations.deployed(latest, scope)["CodeSha256"]
        if code_sha256 and code_sha256 != current:
            raise InvalidParameterValue(
                f"CodeSHA256 ({code_sha256}) is different from current CodeSHA256 in $LATEST ({current}). "
                "Please try again with the CodeSHA256 in $LATEST."
            )


def publish(
    records: Records,
    latest: FunctionVersion,
    limits: AccountLimits,
    description: str | None = None,
    frozen: Package | None = None,
) -> FunctionVersion:
    """Publish ``$LATEST`` inside a transaction, or find that it has been published as it is.

    A version of code that is not ready yet, or of which a snapshot is to be taken, is prepared on its own; the caller
    starts that.

    :param limits: the room that the account has: as on AWS, a version takes as much of it as ``$LATEST`` does.
    :param description: of the version, instead of that of the function.
    :param frozen: what is in the folder that ``$LATEST`` runs from in place: a version does not change any more.
    :raises ResourceConflict: ``$LATEST`` runs from another folder by now.
    :raises CodeStorageExceeded: there is no room for it.
    """
    function = records.get(FUNCTIONS, latest.function)
    assert function is not None
    source = _frozen(latest, frozen) if latest.is_hot else latest
    content = content_of(source)
    before = records.get(VERSIONS, function.name, function.last_version) if function.last_version else None
    if before is not None and before.published_from == content:
        return before
    check_code_storage(records, source.code_size, limits)
    ready = source is latest and is_settled(latest) and not latest.wants_snapshot
    version = replace(
        source if ready else pending(source),
        number=function.last_version + 1,
        description=latest.description if description is None else description,
        revision_id=new_revision(),
        published_from=content,
    )
    records.replace(FUNCTIONS, replace(function, last_version=version.number))
    records.replace(VERSIONS, replace(latest, revision_id=new_revision()))  # as on AWS, whose clients may rely on it
    records.insert(VERSIONS, version)
    if not ready:
        request_preparation(records, version)
    return version


def _frozen(latest: FunctionVersion, frozen: Package | None) -> FunctionVersion:
    if frozen is None or frozen.hot_path != latest.hot_path:
        raise ResourceConflict(f"The code of {latest.function} was changed at the same time. Please try again.")
    return frozen.put_on(latest)


def check_publish_to(request: Request) -> None:
    """Refuse to publish to ``$LATEST.PUBLISHED``.

    :raises InvalidParameterValue: the request asks for that.
    """
    if request.get("PublishTo") == "LATEST_PUBLISHED":
        raise InvalidParameterValue(
            "PublishTo LATEST_PUBLISHED is for functions with a capacity provider, which this host does not run on one."
        )
