"""Functions that were deployed through the API: what is kept of them.

A function has versions. The one that can be changed is ``$LATEST``, number 0; publishing freezes a copy of it under the
next number. Aliases are names for versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from serverfull.domain.functions import LogFormat, RecursiveLoop
from serverfull.domain.names import LATEST
from serverfull.domain.records import Kind

LATEST_NUMBER = 0
"""The number under which ``$LATEST`` is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedFunction:
    """What belongs to a function as a whole.

    :param last_version: the number of the version that was published last; numbers are never used again.
    :param tags: what ListTags shows.
    :param reserved_concurrency: executions at once that are kept for it, and the most that it gets; None: no limit.
    :param code_signing_config: the ARN of the configuration that its packages are checked by.
    :param recursive_loop: ``Terminate`` or ``Allow``.
    :param generation: tells it from a function of the same name that was deleted before; empty: it is older than that.
    """

    name: str
    last_version: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    code_signing_config: str | None = None
    recursive_loop: RecursiveLoop = "Terminate"
    generation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionVersion:
    """Code and configuration of a function: of ``$LATEST``, or as they were when a version was published.

    :param number: 0 for ``$LATEST``.
    :param role: the ARN that CreateFunction was given; nothing here assumes it.
    :param handler: ``module.attribute``, None for images.
    :param runtime: such as ``python3.12``, None for images.
    :param timeout: seconds.
    :param memory_size: MB.
    :param package_type: ``Zip`` or ``Image``.
    :param code_sha256: of the deployment package, in hexadecimal: its name in the code store. Empty for images.
    :param code_size: bytes of the deployment package.
    :param unzipped_size: bytes of its files; 0 where that was not counted yet.
    :param hot_path: the folder of this machine that it runs from in place; of a published version, whose package is
        what was in it then. Empty: its code came as a package.
    :param image_uri: of a function that is an image, as it was given.
    :param resolved_image: the image that this meant when its code was prepared, as ``repository@sha256:digest``: what
        runs, whatever the same name means by now. None: that is not known yet.
    :param s3_bucket: of the object that the package came from, for ``$LATEST`` to follow; empty: it came otherwise, or
        from a version of the object that is always the same. With ``s3_key``, and the ``s3_etag`` that it had.
    :param settings: all other members of AWS's FunctionConfiguration that the caller gave, by their names there.
    :param state: ``Pending``, ``Active``, ``Inactive`` or ``Failed``, with its reason and the reason's code.
    :param last_update_status: ``Successful``, ``InProgress`` or ``Failed``, with its reason and the reason's code.
    :param last_modified: as AWS writes it, ``2026-11-21T04:30:00.000+0000``.
    :param revision_id: a UUID that changes with every change.
    :param optimization: of a version with SnapStart: ``On`` where its environments are restored from a snapshot.
    :param published_from: of a published version: a digest of ``$LATEST`` as it was then.
    """

    function: str
    number: int = LATEST_NUMBER
    role: str
    handler: str | None = None
    runtime: str | None = None
    description: str = ""
    timeout: int = 3
    memory_size: int = 128
    environment: Mapping[str, str] = field(default_factory=dict)
    package_type: str = "Zip"
    architecture: str = "x86_64"
    log_format: LogFormat = "Text"
    code_sha256: str = ""
    code_size: int = 0
    unzipped_size: int = 0
    hot_path: str = ""
    image_uri: str | None = None
    resolved_image: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    s3_bucket: str = ""
    s3_key: str = ""
    s3_etag: str = ""
    state: str = "Active"
    state_reason: str | None = None
    state_reason_code: str | None = None
    last_update_status: str = "Successful"
    last_update_status_reason: str | None = None
    last_update_status_reason_code: str | None = None
    last_modified: str
    revision_id: str
    optimization: Literal["On", "Off"] = "Off"
    published_from: str = ""

    @property
    def version(self) -> str:
        """``$LATEST`` or the number, as AWS writes it."""
        return str(self.number) if self.number else LATEST

    @property
    def is_hot(self) -> bool:
        """Whether it runs from a folder in place, and so is never the same for long."""
        return bool(self.hot_path) and not self.code_sha256

    @property
    def wants_snapshot(self) -> bool:
        """Whether SnapStart is asked for; of ``$LATEST`` it is for the versions that will be published."""
        return bool(self.settings.get("SnapStart", {}).get("ApplyOn") == "PublishedVersions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name for a version of a function.

    :param version: a number, or ``$LATEST``.
    :param weights: shares, 0 to 1, of the calls that go to other versions, by their numbers.
    :param revision_id: a UUID that changes with every change.
    """

    function: str
    name: str
    version: str
    description: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    revision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """Says that the code of a version is to be prepared: written with the version, and deleted when that has succeeded.

    Whoever starts a host finds here what another one did not get to, or could not do.

    :param token: tells this preparation from a later one of the same version.
    """

    function: str
    number: int
    token: str


FUNCTIONS = Kind("functions", DeployedFunction, ("name",), indexed=("code_signing_config",))
VERSIONS = Kind("function_versions", FunctionVersion, ("function", "number"), of_function=True)
ALIASES = Kind("aliases", Alias, ("function", "name"), of_function=True)
PREPARATIONS = Kind("preparations", Preparation, ("function", "number"), of_function=True)
