"""What tags may be: AWS's limits, for every resource that has tags.

Pure functions; the lengths and characters of keys and values are constraints of the AWS model and checked before.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-tags.html
"""

from __future__ import annotations

from collections.abc import Mapping

from serverfull.errors import InvalidParameterValue

MAX_TAGS = 50
"""Tags of one resource."""


def merge_tags(held: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Give the tags that a resource has after some were added; values of keys that it has already are replaced.

    :param held: what it has; empty for a new resource.
    :raises InvalidParameterValue: there would be more than 50, or a key is one of those that AWS keeps for itself.
    """
    if any(key.lower().startswith("aws:") for key in added):
        raise InvalidParameterValue("aws: prefixed tag key names are not allowed for external use.")
    merged = {**held, **added}
    if len(merged) > MAX_TAGS:
        raise InvalidParameterValue("Number of tags exceeds resource tag limit.")
    return merged
