"""A Lambda client of boto3 for a host in a test: the machine's own configuration does not count, nothing is retried."""

from __future__ import annotations

from typing import Any


def lambda_client(url: str, *, access_key: str = "test", region: str = "us-east-1", **config: Any) -> Any:
    """Make a client with credentials that nobody checks.

    :param url: of the host.
    :param access_key: what the host's log may show as the caller.
    :param config: options of ``botocore.config.Config`` on top of those for tests: one attempt, 5 s to connect, 30 s to
        read.
    :raises ImportError: boto3 is not installed; it is no dependency of serverfull.
    """
    try:
        import boto3
    except ImportError:
        raise ImportError("a Lambda client needs boto3, which is not installed: pip install boto3") from None
    from botocore.config import Config

    base: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 30}
    return boto3.client(
        "lambda",
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key="test",
        config=Config(**{**base, **config}),
    )
