"""Function names, ARNs, qualifiers and credential scopes: text in, small frozen values out.

Every operation that takes a function resolves it here, so that a name means the same everywhere. All functions are
pure and depend on nothing but their strings; callers on the hot path wrap `parse_function_reference` in a cache of
their own. Text must be percent-decoded before it comes here, once.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import NamedTuple

from serverfull.domain.records import Partition
from serverfull.errors import InvalidParameterValue, NotFoundError, ValidationFailed

LATEST = "$LATEST"
"""The one version that every function has."""

NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?"
    r"(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
"""``NamespacedFunctionName`` as the AWS model writes it: what Invoke and the Get operations accept."""

QUALIFIER_PATTERN = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
"""``NumericLatestPublishedOrAliasQualifier`` as the AWS model writes it."""

MAX_NAME_LENGTH = 256
"""Characters of a name or ARN."""

MAX_QUALIFIER_LENGTH = 128
"""Characters of a qualifier."""

SHOWN_LENGTH = 256
"""Characters of a caller's value that an error message repeats."""

# Java's \d knows ASCII digits only, and its Matcher.matches() is a full match: hence re.ASCII and fullmatch.
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)

_PLAIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
"""Characters of a bare name: most names that are called by need no pattern, whose making takes 2 ms of a start."""

# Groups of NAME_PATTERN, counted by hand because AWS's text of the pattern has no names for them.
_GROUP_ARN, _GROUP_PARTITION, _GROUP_REGION, _GROUP_ACCOUNT, _GROUP_NAME, _GROUP_QUALIFIER = 1, 2, 3, 9, 11, 13

# From https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html
_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
    ("eusc-", "aws-eusc"),
)


class FunctionReference(NamedTuple):
    """What a caller named.

    :param name: the bare function name.
    :param qualifier: version or alias; None where neither the name nor the query had one.
    :param account: twelve digits, where the name was an ARN (or the part of one) that had them.
    :param region: where the name was an ARN that had one.
    """

    name: str
    qualifier: str | None = None
    account: str | None = None
    region: str | None = None


class CredentialScope(NamedTuple):
    """What the credentials of a request say about it, verified or not.

    :param access_key: the access key id.
    :param region: the region that the request was signed for.
    :param service: the service that the request was signed for, ``lambda`` as a rule.
    """

    access_key: str
    region: str
    service: str

    @property
    def account(self) -> str | None:
        """The access key id where it is twelve digits: callers without real credentials choose an account that way."""
        return self.access_key if _ACCOUNT.fullmatch(self.access_key) else None


class RequestScope(NamedTuple):
    """On whose behalf and where a request runs.

    :param account: twelve digits, a default where the credentials tell none.
    :param region: such as ``us-east-1``, a default where the credentials tell none.
    :param request_id: the id that the caller sees in ``x-amzn-RequestId``.
    :param account_known: whether the account came from the credentials. A default must not refuse anybody's ARNs.
    :param base_url: how the caller reached the API, without a slash at the end: for URLs that lead back to it.
    """

    account: str
    region: str
    request_id: str
    account_known: bool = False
    base_url: str = ""

    @property
    def partition(self) -> Partition:
        """The account and the region, which keep what was deployed apart."""
        return Partition(self.account, self.region)


def parse_function_reference(text: str, qualifier: str | None = None) -> FunctionReference:
    """Read a function name as Invoke and the Get operations accept it.

    ``name``, ``function:name``, ``123456789012:function:name`` or a full ARN, each with ``:qualifier`` or without.

    :param text: the name, percent-decoded.
    :param qualifier: the Qualifier parameter; empty counts as absent.
    :raises ValidationFailed: the name or the qualifier breaks a constraint of the AWS model.
    :raises InvalidParameterValue: the name has a qualifier and the parameter is another one.
    :raises NotFoundError: it is an ARN of one of AWS's partitions, with a region that is in another.

    AWS: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_RequestParameters
    """
    qualifier = qualifier or None
    if text and qualifier is None and len(text) <= MAX_NAME_LENGTH and not text.strip(_PLAIN):
        return FunctionReference(text)
    match = re.fullmatch(NAME_PATTERN, text, re.ASCII)
    if match is None or len(text) > MAX_NAME_LENGTH or (qualifier is not None and not _is_qualifier(qualifier)):
        raise ValidationFailed(*_name_problems(text), *_qualifier_problems(qualifier))
    arn, partition, region, account, name, derived = match.group(
        _GROUP_ARN, _GROUP_PARTITION, _GROUP_REGION, _GROUP_ACCOUNT, _GROUP_NAME, _GROUP_QUALIFIER
    )
    if arn is not None and region is not None and not is_partition_of(partition or "", region[:-1]):
        raise NotFoundError(text)
    if derived is not None and qualifier is not None and derived != qualifier:
        raise InvalidParameterValue(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    return FunctionReference(name, qualifier or derived, account and account[:-1], region and region[:-1])


def check_reachable(reference: FunctionReference, account: str | None, region: str) -> None:
    """Refuse an ARN that points out of the request's region or account.

    :param account: the account of the request; None where the credentials tell none, and then every account will do.
    :param region: the region of the request.
    :raises NotFoundError: the function is elsewhere; the text does not tell whether it exists.
    """
    if reference.region is not None and reference.region != region:
        raise NotFoundError(
            reference.name, f"Functions from '{reference.region}' are not reachable in this region ('{region}')"
        )
    if reference.account is not None and account is not None and reference.account != account:
        raise function_not_found(reference.name, reference.account, region, reference.qualifier)


def function_arn(name: str, account: str, region: str, qualifier: str | None = None) -> str:
    """Write the ARN of a function, qualified where a qualifier is given."""
    arn = f"arn:{partition_of(region)}:lambda:{region}:{account}:function:{name}"
    return f"{arn}:{qualifier}" if qualifier else arn


def partition_of(region: str) -> str:
    """Tell the partition that a region belongs to: ``aws``, ``aws-cn``, ``aws-us-gov`` …"""
    for prefix, partition in _PARTITIONS:
        if region.startswith(prefix):
            return partition
    return "aws"


def is_partition_of(partition: str, region: str) -> bool:
    """Tell whether an ARN with both can name anything: ``aws-cn`` and ``us-east-1`` never go together."""
    return partition == partition_of(region)


def function_not_found(name: str, account: str, region: str, qualifier: str | None = None) -> NotFoundError:
    """Build the error for an unknown function, version or alias, in AWS's words."""
    return NotFoundError(function_arn(name, account, region, qualifier))


def parse_credential_scope(authorization: str | None) -> CredentialScope | None:
    """Read who signed a request and for where, without checking the signature.

    :param authorization: the Authorization header:
        ``AWS4-HMAC-SHA256 Credential=AKID/date/region/service/aws4_request, SignedHeaders=…``.
    :returns: None where there is no such header, or one of another kind or shape.

    AWS: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-authentication-methods.html
    """
    credential = credential_of(authorization)
    return None if credential is None else parse_credential(credential)


def credential_of(authorization: str | None) -> str | None:
    """Cut ``AKID/date/region/service/aws4_request`` out of an Authorization header.

    The same text for a day and a signer, unlike the header: whoever caches parsed scopes caches them by this.
    """
    if authorization is None:
        return None
    start = authorization.find("Credential=")
    if start < 0:
        return None
    end = authorization.find("/aws4_request", start, start + 256)
    return authorization[start + 11 : end + 13] if end > 0 else None


def parse_credential(credential: str) -> CredentialScope | None:
    """Read a credential as the Authorization header and a presigned URL's ``X-Amz-Credential`` spell it.

    :returns: None where it is not of the shape ``AKID/date/region/service/aws4_request``.
    """
    parts = credential.split("/")
    # The region ends up in ARNs and in other services' addresses, so it has to look like one.
    if len(parts) != 5 or parts[4] != "aws4_request" or not parts[0] or not _REGION.fullmatch(parts[2]):
        return None
    return CredentialScope(parts[0], parts[2], parts[3])


def shown(value: str) -> str:
    """Make a caller's value fit to be repeated in a message: nothing unprintable, and not too long."""
    if len(value) > SHOWN_LENGTH:
        value = value[:SHOWN_LENGTH] + "…"
    if value.isprintable():
        return value
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in value)


def _is_qualifier(qualifier: str) -> bool:
    return len(qualifier) <= MAX_QUALIFIER_LENGTH and re.fullmatch(QUALIFIER_PATTERN, qualifier, re.ASCII) is not None


def _name_problems(text: str) -> list[str]:
    return _problems("functionName", text, NAME_PATTERN, MAX_NAME_LENGTH)


def _qualifier_problems(qualifier: str | None) -> list[str]:
    if qualifier is None:
        return []
    return _problems("qualifier", qualifier, QUALIFIER_PATTERN, MAX_QUALIFIER_LENGTH)


def _problems(member: str, value: str, pattern: str, most: int) -> list[str]:
    failed = f"Value '{shown(value)}' at '{member}' failed to satisfy constraint: Member must"
    problems = []
    if len(value) > most:
        problems.append(f"{failed} have length less than or equal to {most}")
    if not value:
        problems.append(f"{failed} have length greater than or equal to 1")
    if re.fullmatch(pattern, value, re.ASCII) is None:
        problems.append(f"{failed} satisfy regular expression pattern: {pattern}")
    return problems


def new_log_stream(version: str) -> str:
    """Name the log stream of a new execution environment, as AWS does: the day, the version and something unique."""
    return f"{time.strftime('%Y/%m/%d', time.gmtime())}/[{version}]{secrets.token_hex(16)}"
