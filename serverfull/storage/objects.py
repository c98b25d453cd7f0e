"""Objects in buckets of callers: the place that CreateFunction takes a package from, and looks at again.

Used by the management API, with the credentials and the endpoint of the host alone; boto3 is called on threads.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

from serverfull.domain.objects import StoredObject
from serverfull.errors import ExtraMissing, InternalFailure, InvalidParameterValue, RequestRefused
from serverfull.storage.durable import Threads
from serverfull.storage.packages import check_unzipped_size
from serverfull.storage.s3 import ABSENT, S3Client, S3Endpoint, code_of, etag_of

_ATTEMPTS = 3
"""How often an object is read that changes meanwhile, or whose content ends too early."""

_LOOKING = 5.0
"""Seconds that S3 may take to say how an object is: somebody looks again soon."""

_MESSAGES = {
    "NoSuchKey": "The specified key does not exist.",
    "NoSuchBucket": "The specified bucket does not exist",
    "NoSuchVersion": "The specified version does not exist.",
    "AccessDenied": "Access Denied",
    "PreconditionFailed": "At least one of the pre-conditions you specified did not hold",
}
"""What AWS's S3 says; other servers may give the code alone."""
_DENIED = {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "Forbidden"}


class S3Objects:
    """Reads packages that callers have in buckets of theirs, with the host's own credentials."""

    def __init__(self, endpoint: S3Endpoint | None = None) -> None:
        endpoint = endpoint or S3Endpoint()
        self._client = S3Client(endpoint)
        self._looking = S3Client(endpoint, read_timeout=_LOOKING, attempts=1)
        self._threads = Threads("serverfull-s3")
        self._looks = Threads("serverfull-s3-looks")  # apart: a package that comes slowly keeps nobody from looking

    async def fetch_object(self, bucket: str, key: str, version: str | None = None) -> StoredObject:
        """Read an object, as CreateFunction takes it by S3Bucket, S3Key and S3ObjectVersion.

        An object that changes while it is read is read again, so that nothing is ever mixed of two.

        https://docs.aws.amazon.com/lambda/latest/api/API_FunctionCode.html

        :raises InvalidParameterValue: S3 has no such object, or it is larger than a package may be, which is seen
            before it is downloaded; or boto3 is not installed.
        :raises RequestRefused: S3 does not let this host have it.
        :raises InternalFailure: S3 cannot be reached, or fails.
        """
        return await self._threads.run(partial(self._fetch, bucket, key, version))

    async def look(self, bucket: str, key: str) -> str | None:
        """Give the ETag that an object has now; None: there is none.

        :raises RequestRefused: S3 does not let this host see it.
        :raises InternalFailure: S3 cannot be reached, or fails.
        """
        return await self._looks.run(partial(self._look, bucket, key))

    def _fetch(self, bucket: str, key: str, version: str | None) -> StoredObject:
        try:
            client = self._client.get()
        except ExtraMissing as missing:
            raise InvalidParameterValue(str(missing)) from None
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

        place = {"Bucket": bucket, "Key": key} | ({"VersionId": version} if version else {})
        try:
            for _ in range(_ATTEMPTS):
                found = _read(client, place)
                if found is not None:
                    return found
        except ClientError as error:
            raise _refusal(error, bucket, key) from error
        except ParamValidationError as error:
            raise _not_fetched("InvalidBucketName", "The specified bucket is not valid.") from error
        except NoCredentialsError as error:
            raise _denied(bucket, key, "AccessDenied", "This host has no AWS credentials") from error
        except BotoCoreError as error:
            raise InternalFailure("S3 cannot be reached; see the host's log for the request id.") from error
        raise _not_fetched("PreconditionFailed", _MESSAGES["PreconditionFailed"])

    def _look(self, bucket: str, key: str) -> str | None:
        try:
            client = self._looking.get()
        except ExtraMissing as missing:
            raise InternalFailure(str(missing)) from None
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return etag_of(client.head_object(Bucket=bucket, Key=key))
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            raise _refusal(error, bucket, key) from error
        except BotoCoreError as error:
            raise InternalFailure(f"S3 cannot be reached: {error}") from error

    async def aclose(self) -> None:
        """Wait for what is under way. Closing twice is fine."""
        await self._threads.aclose()
        await self._looks.aclose()
        self._client.close()
        self._looking.close()


def _read(client: Any, place: dict[str, str]) -> StoredObject | None:
    """Read an object; None: it was another one when it had been read, or its content ended too early.

    Servers that replace objects in place give a mixture of both, and only the second look tells.
    """
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError

    answer = client.get_object(**place)
    etag = etag_of(answer)
    with closing(answer["Body"]) as body:
        check_unzipped_size(answer["ContentLength"])  # packed is less than unpacked, or close to it
        try:
            content: bytes = body.read()
        except (IncompleteReadError, ResponseStreamingError):
            return None
    if len(content) != answer["ContentLength"] or etag_of(client.head_object(**place)) != etag:
        return None
    return StoredObject(content, etag)


def _refusal(error: Any, bucket: str, key: str) -> Exception:
    """Say in AWS's words that S3 refused."""
    code = code_of(error)
    message = error.response["Error"].get("Message") or _MESSAGES.get(code, "")
    if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
        return InternalFailure("S3 failed; see the host's log for the request id.")
    return _denied(bucket, key, code, message) if code in _DENIED else _not_fetched(code, message)


def _not_fetched(code: str, message: str) -> InvalidParameterValue:
    return InvalidParameterValue(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}")


def _denied(bucket: str, key: str, code: str, message: str) -> RequestRefused:
    return RequestRefused(
        "Your access has been denied by S3, please make sure your request credentials have permission to GetObject "
        f"for {bucket}/{key}. S3 Error Code: {code}. S3 Error Message: {message}"
    )
