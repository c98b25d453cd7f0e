"""What boto3 gives for calls of the control plane: answers, and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def plain(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Give an answer without what boto3 adds to every one."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def refused(call: Callable[..., Any], code: str, status: int = 400, /, **members: Any) -> str:
    """Make a call that must fail with this code and status, and give the message."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), error
    message: str = error["Error"]["Message"]
    return message
