"""What an account may run and keep, and what functions have of it."""

from __future__ import annotations

from dataclasses import dataclass

from serverfull.domain.limits import UNZIPPED_PACKAGE_BYTES, ZIPPED_PACKAGE_BYTES
from serverfull.domain.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """Limits of an account in a region; the defaults are AWS's.

    :param concurrent_executions: executions of all functions at once.
    :param minimum_unreserved: executions that reservations must leave to the other functions.
    :param total_code_size: bytes of all deployment packages and layers.
    :param code_size_zipped: bytes of a package that is sent with a request.
    :param code_size_unzipped: bytes of a package and its layers when they are unpacked.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    """

    concurrent_executions: int = 1_000
    minimum_unreserved: int = 100
    total_code_size: int = 80_530_636_800
    code_size_zipped: int = ZIPPED_PACKAGE_BYTES
    code_size_unzipped: int = UNZIPPED_PACKAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionedConcurrency:
    """How many environments a version or alias is to have ready.

    :param qualifier: the version or alias.
    :param last_modified: when it was asked for, as AWS writes it here, ``2026-11-21T04:30:00+0000``.
    """

    function: str
    qualifier: str
    requested: int
    last_modified: str


PROVISIONED_CONCURRENCY = Kind(
    "provisioned_concurrency", ProvisionedConcurrency, ("function", "qualifier"), of_function=True
)
