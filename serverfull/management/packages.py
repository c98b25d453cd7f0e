"""How code comes in: with the request, from S3, or as the name of a container image.

Called by CreateFunction and UpdateFunctionCode before their transaction: the code store goes by content, so a package
that no version comes to refer to is only garbage, which the next start sweeps out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from serverfull.domain.checksums import sha256_of
from serverfull.domain.hot_paths import OFF, refused
from serverfull.domain.limits import ZIPPED_PACKAGE_BYTES
from serverfull.domain.objects import StoredObject
from serverfull.errors import InvalidParameterValue, RequestEntityTooLarge
from serverfull.management.code_signing import is_signed
from serverfull.management.validation import check_image_uri

if TYPE_CHECKING:
    from serverfull.domain.deployed import FunctionVersion
    from serverfull.interfaces import CodeStore

FetchObject: TypeAlias = Callable[[str, str, "str | None"], Awaitable[StoredObject]]
"""Reads a bucket's object, of that version or of the newest; raises InvalidParameterValue."""


class FindFolders(Protocol):
    """What knows which folders of the machine may be run in place."""

    def is_hot(self, bucket: str) -> bool:
        """Whether a bucket stands for folders of the machine."""

    def admit(self, key: str) -> str:
        """Give the path of a folder that a deployment names, with variables replaced. Blocks.

        :raises InvalidParameterValue: it may not be used.
        """

    def pack(self, path: str) -> bytes:
        """Make a package of what is in a folder now. Blocks.

        :raises InvalidParameterValue: it may not be used any more, or cannot be a package.
        """


class Unpackable(Protocol):
    """A package that can be unpacked."""

    @property
    def unzipped_bytes(self) -> int:
        """Of all its files."""


CheckPackage: TypeAlias = Callable[[bytes], Awaitable[Unpackable]]
"""Raises InvalidParameterValue where a package cannot be unpacked."""

_NOWHERE = ("", "", "")

KMS_KEY = "SourceKMSKeyArn"
"""The setting that keeps the key which encrypts the package; GetFunction shows it beside the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Code that was taken in.

    :param content: the zip archive; None for an image, and for a folder that is run in place.
    :param sha256: of the archive, in hexadecimal; empty where there is none.
    :param unzipped_size: bytes of its files.
    :param signed: whether the archive has a signature of AWS Signer, of whatever worth.
    :param s3_bucket: of the object that the function follows from now on, with ``s3_key`` and ``s3_etag``; empty: none.
    :param hot_path: the folder that is run in place, or that the archive was made of; empty: neither.
    """

    content: bytes | None = None
    sha256: str = ""
    unzipped_size: int = 0
    signed: bool = False
    hot_path: str = ""
    image_uri: str | None = None
    kms_key: str | None = None
    s3_bucket: str = ""
    s3_key: str = ""
    s3_etag: str = ""

    def put_on(self, version: FunctionVersion) -> FunctionVersion:
        """Give a version with this code instead of its own."""
        settings = {member: value for member, value in version.settings.items() if member != KMS_KEY}
        if self.kms_key:
            settings[KMS_KEY] = self.kms_key
        return replace(
            version,
            code_sha256=self.sha256,
            code_size=len(self.content or b""),
            unzipped_size=self.unzipped_size,
            hot_path=self.hot_path,
            image_uri=self.image_uri,
            resolved_image=None,
            s3_bucket=self.s3_bucket,
            s3_key=self.s3_key,
            s3_etag=self.s3_etag,
            settings=settings,
        )


class PackageIntake:
    """Takes in code.

    :param code: where packages are kept.
    :param check_package: refuses packages that cannot be unpacked.
    :param fetch_object: reads from S3; None where that is not possible.
    :param folders: knows which folders may be run in place; None: none.
    """

    def __init__(
        self,
        code: CodeStore,
        *,
        check_package: CheckPackage,
        fetch_object: FetchObject | None,
        folders: FindFolders | None = None,
    ) -> None:
        self._code = code
        self._check_package = check_package
        self._fetch_object = fetch_object
        self._folders = folders

    async def read(self, members: Mapping[str, Any], package_type: str) -> Package:
        """Read and check the code that a request has; it is not kept yet.

        :param members: those of FunctionCode.
        :param package_type: of the function, ``Zip`` or ``Image``.
        :raises InvalidParameterValue: there is none, too much of it, or none that can be used.
        :raises RequestEntityTooLarge: the package in the request is too large.
        """
        _check_sources(members, package_type)
        kms_key = members.get(KMS_KEY)
        if package_type == "Image":
            check_image_uri(members["ImageUri"])
            return Package(image_uri=members["ImageUri"], kms_key=kms_key)
        if "ZipFile" in members:
            content: bytes = members["ZipFile"]
            source = _NOWHERE
            if len(content) > ZIPPED_PACKAGE_BYTES:
                raise RequestEntityTooLarge(f"Zipped size must be smaller than {ZIPPED_PACKAGE_BYTES} bytes")
        elif self._folders is not None and self._folders.is_hot(members["S3Bucket"]):
            _check_hot(members)
            return Package(hot_path=await asyncio.to_thread(self._folders.admit, members["S3Key"]))
        else:
            found = await self._fetch(members)
            content, source = found.content, _followed(members, found.etag)
        package = await self._taken(content, kms_key)
        return replace(package, s3_bucket=source[0], s3_key=source[1], s3_etag=source[2])

    async def freeze(self, path: str) -> Package:
        """Make a package of what is now in a folder that is run in place, for a version that stays as it is; keep it.

        :raises InvalidParameterValue: the folder may not be used any more, or cannot be a package.
        """
        if self._folders is None:
            raise refused(path, OFF)
        package = await self._taken(await asyncio.to_thread(self._folders.pack, path), None)
        await self.keep(package)
        return replace(package, hot_path=path)

    async def _taken(self, content: bytes, kms_key: str | None) -> Package:
        facts = await self._check_package(content)
        return await asyncio.to_thread(_described, content, facts.unzipped_bytes, kms_key)

    async def keep(self, package: Package) -> None:
        """Keep a package, durably when this returns."""
        if package.content is not None:
            await self._code.put(package.content)

    async def is_signed(self, sha256: str) -> bool:
        """Tell whether a package that was kept has a signature.

        :raises KeyError: it is not there.
        """
        return await asyncio.to_thread(is_signed, await self._code.package(sha256))

    async def _fetch(self, members: Mapping[str, Any]) -> StoredObject:
        if self._fetch_object is None:
            raise InvalidParameterValue(
                "Code in S3 cannot be read: that needs boto3, which is not installed on this host "
                "(pip install 'serverfull[s3]')."
            )
        return await self._fetch_object(members["S3Bucket"], members["S3Key"], members.get("S3ObjectVersion"))


def _followed(members: Mapping[str, Any], etag: str) -> tuple[str, str, str]:
    """Say which object a function follows: bucket, key and ETag. One version of it never changes."""
    return _NOWHERE if members.get("S3ObjectVersion") else (members["S3Bucket"], members["S3Key"], etag)


def _described(content: bytes, unzipped_size: int, kms_key: str | None) -> Package:
    """Find out what is known of an archive; that takes its time."""
    return Package(
        content=content,
        sha256=sha256_of(content),
        unzipped_size=unzipped_size,
        signed=is_signed(content),
        kms_key=kms_key,
    )


def _check_hot(members: Mapping[str, Any]) -> None:
    """Refuse what a folder that is run in place does not have, for nothing is accepted that would not act."""
    for member in (KMS_KEY, "S3ObjectVersion"):
        if members.get(member):
            raise InvalidParameterValue(f"{member} is for packages: a folder that is run in place has none.")


def _check_sources(members: Mapping[str, Any], package_type: str) -> None:
    from_s3 = "S3Bucket" in members or "S3Key" in members
    if "ImageUri" in members and package_type != "Image":
        raise InvalidParameterValue("Please don't provide ImageUri when updating a function with packageType Zip.")
    if ("ZipFile" in members or from_s3) and package_type == "Image":
        raise InvalidParameterValue("Please provide ImageUri when updating a function with packageType Image.")
    if "ZipFile" in members and from_s3:
        raise InvalidParameterValue("Please do not provide other FunctionCode parameters when providing a ZipFile.")
    if not members.get("ImageUri") and "ZipFile" not in members and not ("S3Bucket" in members and "S3Key" in members):
        raise InvalidParameterValue("Please provide a source for function code.")
    if members.get("S3ObjectStorageMode") == "REFERENCE":
        raise InvalidParameterValue("S3ObjectStorageMode REFERENCE is not available here: code in S3 is copied.")
