"""``GET /_serverfull/code/<sha256>``: deployment packages for those who were given a signed link, while it lasts.

GetFunction and GetLayerVersion give such links out where the code store is this machine's; an S3 one gives links to S3.
The link is the permission: nothing else is asked of who follows it, except that the Host and Origin gates let it pass.

Packages are read in pieces on threads and written as fast as the client reads, so the server's deadline for answers
that nobody reads holds here too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from aiohttp import web

from serverfull.api.connection import REQUEST_ID, error_response
from serverfull.domain.checksums import is_sha256
from serverfull.errors import RequestError, RequestRefused, ResourceNotFound

PIECE_BYTES = 1 << 18

EXPIRED = "Request has expired"
FORGED = "The request signature we calculated does not match the signature you provided."


class SignedPackages(Protocol):
    """What packages and their links come from; `serverfull.storage.code.FileCodeStore` fits."""

    async def verify(self, sha256: str, expires: int, signature: str) -> bool:
        """Say whether this store signed a link to that package that is good until then."""

    def file(self, sha256: str) -> Path:
        """Give the file of a package, or raise KeyError. May block for a moment."""


def add_code_downloads(
    app: web.Application, packages: SignedPackages, *, admit: Callable[[web.BaseRequest], str]
) -> None:
    """Add the path to an application.

    :param admit: lets a request in and gives it its id, or raises a RequestError; ``Front.admit`` is one.
    """
    downloads = _Downloads(packages, admit)
    app.router.add_get("/_serverfull/code/{sha256}", downloads.answer)


class _Downloads:
    def __init__(self, packages: SignedPackages, admit: Callable[[web.BaseRequest], str]) -> None:
        self._packages = packages
        self._admit = admit

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; what is wrong with it is said in AWS's form, as everywhere."""
        try:
            request_id = self._admit(request)
            sha256 = await self._permitted(request)
            file = await asyncio.to_thread(self._open, sha256)
        except RequestError as error:
            return error_response(error, request.get(REQUEST_ID) or str(uuid4()))
        try:
            return await _send(request, file, request_id)
        finally:
            file.close()

    async def _permitted(self, request: web.Request) -> str:
        """Give the package that the link of a request is for.

        :raises RequestRefused: the link is not ours, was changed, or is too old.
        """
        sha256, query = request.match_info["sha256"], request.query
        expires, signature = query.get("expires", ""), query.get("signature", "")
        if len(expires) > 12 or not (expires.isascii() and expires.isdigit()) or not is_sha256(sha256):
            raise RequestRefused(FORGED)
        if not await self._packages.verify(sha256, int(expires), signature):
            raise RequestRefused(FORGED)
        if time.time() >= int(expires):
            raise RequestRefused(EXPIRED)
        return sha256

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return self._packages.file(sha256).open("rb")
        except (KeyError, FileNotFoundError):
            raise ResourceNotFound("The deployment package is not kept any more.") from None


async def _send(request: web.Request, file: BinaryIO, request_id: str) -> web.StreamResponse:
    headers = {"Content-Type": "application/zip", "Cache-Control": "no-store", "x-amzn-RequestId": request_id}
    response = web.StreamResponse(headers=headers)
    response.content_length = file.seek(0, 2)
    file.seek(0)
    await response.prepare(request)
    if request.method != "HEAD":
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            await response.write(piece)
    return response
