"""The document ``function.json`` that stands for a function in a bucket, as AWS's API writes configurations::

    {
      "Handler": "orders.place", "Timeout": 30, "Layers": ["layers/common.zip"],
      "Code": {"S3Key": "orders/code.zip"}, "CodeSha256": "K0FwH9…",
      "Versions": {"1": {"Handler": "orders.place", "Code": {"S3Key": "orders/1.zip"}}},
      "Aliases": {"live": {"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.1}}}}
    }

Everything in it may be left out. The members of the document itself are those of ``$LATEST``; tags, reserved
concurrency and the recursive loop are those of all versions. Keys of objects are below the prefix that all functions of
the bucket are below. `parse_document` reads one, whoever wrote it, and `write_document` writes what was deployed. All
are pure functions.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from serverfull.domain.checksums import code_sha256
from serverfull.domain.deployed import LATEST_NUMBER, Alias, DeployedFunction, FunctionVersion
from serverfull.domain.json_functions import dumps, loads
from serverfull.domain.manifests import Manifest, parse_manifest
from serverfull.domain.names import LATEST
from serverfull.errors import ManifestInvalid

DOCUMENT = "function.json"
CODE = "code.zip"
PACKAGES = "code/"
"""Below it are packages by their content: ``code/<sha256>.zip``."""

OF_FUNCTION = ("Tags", "ReservedConcurrentExecutions", "RecursiveLoop")
"""Members that are the same for all versions."""
_OF_CODE = ("Code", "CodeSha256", "CodeSize", "LastModified")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_ALIAS = re.compile(r"(?![0-9]+$)[a-zA-Z0-9-_]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentVersion:
    """A version of a function, as its document has it.

    :param key: of the package's object, below the prefix; None: ``code.zip`` beside the document.
    :param sha256: that the package must have, in hexadecimal; None: any.
    :param size: bytes that it must have; None: any.
    :param image_uri: the container image that is its code instead; empty: it is none.
    :param last_modified: when it was changed; None: when its object was.
    """

    manifest: Manifest
    key: str | None = None
    sha256: str | None = None
    size: int | None = None
    image_uri: str = ""
    last_modified: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentAlias:
    """A name for a version.

    :param weights: shares of the calls that go to other versions, by their numbers.
    """

    version: str
    description: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionDocument:
    """A function: its versions, ``$LATEST`` among them, and its aliases."""

    versions: Mapping[str, DocumentVersion]
    aliases: Mapping[str, DocumentAlias] = field(default_factory=dict)


def parse_document(content: bytes | None, where: str) -> FunctionDocument:
    """Read the document of a function.

    :param content: None: there is none, and everything is left out.
    :param where: what it is in, for messages.
    :raises ManifestInvalid: it is no such document; the message says what is wrong.
    """
    members = dict(_object({} if content is None else _decoded(content, where), where))
    others = _object(members.pop("Versions", {}), where, "Versions")
    aliases = _object(members.pop("Aliases", {}), where, "Aliases")
    latest = _version(members, where)
    versions = {LATEST: latest}
    for number, given in others.items():
        place = f"{where}, Versions.{number}"
        if _NUMBER.fullmatch(number) is None:
            raise ManifestInvalid(where, f"Versions: {number!r} is no number of a version")
        own = _object(given, place)
        if told := [member for member in OF_FUNCTION if member in own]:
            raise ManifestInvalid(place, f"{told[0]}: it is the same for all versions, and not said of one")
        version = _version(own, place)
        shared = {name: getattr(latest.manifest, name) for name in ("tags", "reserved_concurrency", "recursive_loop")}
        versions[number] = replace(version, manifest=replace(version.manifest, **shared))
    known = {name: _alias(name, given, versions, f"{where}, Aliases.{name}") for name, given in aliases.items()}
    return FunctionDocument(versions=versions, aliases=known)


def _decoded(content: bytes, where: str) -> Any:
    try:
        return loads(content)
    except (ValueError, RecursionError):
        raise ManifestInvalid(where, "it is not JSON") from None


def _object(value: Any, where: str, member: str = "") -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise ManifestInvalid(where, f"{member}: it has to be an object" if member else "it has to be an object")


def _version(members: Mapping[str, Any], where: str) -> DocumentVersion:
    code = _object(members.get("Code", {}), where, "Code")
    for name, value in code.items():
        if name not in ("S3Key", "ImageUri"):
            raise ManifestInvalid(where, f"Code.{name} is not known here; there are S3Key and ImageUri")
        if not isinstance(value, str) or not value:
            raise ManifestInvalid(where, f"Code.{name}: it has to be a text")
    if len(code) > 1:
        raise ManifestInvalid(where, "Code: it is an S3Key or an ImageUri, not both")
    size = members.get("CodeSize")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise ManifestInvalid(where, "CodeSize: it has to be a whole number")
    manifest = {name: value for name, value in members.items() if name not in _OF_CODE}
    return DocumentVersion(
        manifest=parse_manifest(manifest, where, "Image" if "ImageUri" in code else "Zip"),
        key=code.get("S3Key"),
        sha256=_sha256(members.get("CodeSha256"), where),
        size=size,
        image_uri=code.get("ImageUri", ""),
        last_modified=_moment(members.get("LastModified"), where),
    )


def _moment(given: Any, where: str) -> datetime | None:
    if given is None:
        return None
    try:
        return datetime.strptime(given, "%Y-%m-%dT%H:%M:%S.%f%z")
    except (TypeError, ValueError):
        raise ManifestInvalid(where, "LastModified: it has to be a time such as 2026-11-21T04:30:00.000+0000") from None


def _sha256(given: Any, where: str) -> str | None:
    if given is None:
        return None
    try:
        decoded = base64.b64decode(given, validate=True)
    except (TypeError, ValueError, binascii.Error):
        decoded = b""
    if len(decoded) != 32:
        raise ManifestInvalid(where, "CodeSha256: it has to be a SHA-256 in base64, as AWS writes it")
    return decoded.hex()


def _alias(name: str, given: Any, versions: Mapping[str, Any], where: str) -> DocumentAlias:
    if _ALIAS.fullmatch(name) is None:
        raise ManifestInvalid(where, "it is no name of an alias")
    members = _object(given, where)
    if unknown := set(members) - {"FunctionVersion", "Description", "RoutingConfig"}:
        raise ManifestInvalid(where, f"{min(unknown)} is not known here")
    routing = _object(members.get("RoutingConfig", {}), where, "RoutingConfig")
    weights = _object(routing.get("AdditionalVersionWeights", {}), where, "AdditionalVersionWeights")
    version, description = members.get("FunctionVersion", LATEST), members.get("Description", "")
    if not isinstance(description, str):
        raise ManifestInvalid(where, "Description: it has to be a text")
    for named in (version, *weights):
        if named not in versions:
            raise ManifestInvalid(where, f"there is no version {named}")
    for weight in weights.values():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise ManifestInvalid(where, "AdditionalVersionWeights: a weight has to be a number from 0 to 1")
    return DocumentAlias(version=version, description=description, weights=dict(weights))


LayerPackages = Callable[[FunctionVersion], Sequence[str]]
"""Gives the SHA-256 of a version's layers, in hexadecimal, the first one at the bottom."""


def write_document(
    function: DeployedFunction,
    versions: Iterable[FunctionVersion],
    aliases: Iterable[Alias],
    layers: LayerPackages,
) -> dict[str, Any]:
    """Write what was deployed, with packages under their content.

    :param versions: those that can be run, ``$LATEST`` among them as a rule.
    """
    document: dict[str, Any] = {"Versions": {}}
    for version in versions:
        members = _members_of(version, layers(version))
        if version.number == LATEST_NUMBER:
            document |= members
        else:
            document["Versions"][version.version] = members
    written = {LATEST, *document["Versions"]}
    document["Aliases"] = {
        alias.name: _alias_members(alias) for alias in aliases if {alias.version, *alias.weights} <= written
    }
    if function.tags:
        document["Tags"] = dict(function.tags)
    if function.reserved_concurrency is not None:
        document["ReservedConcurrentExecutions"] = function.reserved_concurrency
    if function.recursive_loop != "Terminate":
        document["RecursiveLoop"] = function.recursive_loop
    return document


def encoded(document: Mapping[str, Any]) -> bytes:
    """Give the bytes of a document: the same for the same content."""
    return dumps(document, sort_keys=True).encode()


def _members_of(version: FunctionVersion, layers: Sequence[str]) -> dict[str, Any]:
    settings = version.settings
    logging = {"LogFormat": version.log_format, **settings.get("LoggingConfig", {})}
    members: dict[str, Any] = {
        "Timeout": version.timeout,
        "MemorySize": version.memory_size,
        "Architectures": [version.architecture],
        "LoggingConfig": logging,
        "LastModified": version.last_modified,
        **{name: settings[name] for name in ("EphemeralStorage", "ImageConfig") if settings.get(name)},
    }
    if version.description:
        members["Description"] = version.description
    if version.environment:
        members["Environment"] = {"Variables": dict(version.environment)}
    if version.image_uri is not None:
        return members | {"Code": {"ImageUri": version.resolved_image or version.image_uri}}
    return members | {
        "Handler": version.handler,
        "Runtime": version.runtime,
        "Code": {"S3Key": package_key(version.code_sha256)},
        "CodeSha256": code_sha256(version.code_sha256),
        "CodeSize": version.code_size,
        **({"Layers": [package_key(sha256) for sha256 in layers]} if layers else {}),
    }


def _alias_members(alias: Alias) -> dict[str, Any]:
    members: dict[str, Any] = {"FunctionVersion": alias.version}
    if alias.description:
        members["Description"] = alias.description
    if alias.weights:
        members["RoutingConfig"] = {"AdditionalVersionWeights": dict(alias.weights)}
    return members


def package_key(sha256: str) -> str:
    """Give the key of a package by its content, below the prefix."""
    return f"{PACKAGES}{sha256}.zip"
