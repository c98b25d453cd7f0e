"""Resource-based policies of functions: who may use a function, a version or an alias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serverfull.domain.records import Kind

POLICY_BYTES = 20_480
"""The longest policy of a function or layer version, as compact JSON.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

POLICY_VERSION = "2012-10-17"
"""The version of AWS's policy language."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of a function, or of one of its versions or aliases.

    :param qualifier: the version or alias; empty for the function itself.
    :param content: the document, with ``Statement`` as a list of at least one statement.
    """

    function: str
    qualifier: str
    content: Mapping[str, Any]


POLICIES = Kind("policies", Policy, ("function", "qualifier"), of_function=True)
