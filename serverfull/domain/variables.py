"""What the environment variables of a function may be.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serverfull.domain.json_functions import dumps

ENVIRONMENT_BYTES = 4_096
"""All variables of a function together, as `measured` writes them."""

VARIABLE_PATTERN = r"[a-zA-Z]([a-zA-Z0-9_])+"
"""The name of a variable, as the AWS model writes it."""

RESERVED_VARIABLES = frozenset(
    (
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    )
)
"""Names that are the runtime's own."""


def reserved_among(variables: Mapping[str, str]) -> Sequence[str]:
    """Give the names that no function may set, sorted."""
    return sorted(RESERVED_VARIABLES.intersection(variables))


def measured(variables: Mapping[str, str]) -> str:
    """Write variables as AWS does to measure them."""
    return dumps(variables, separators=(",", ":"), ensure_ascii=False)


def too_long(text: str) -> bool:
    """Say whether variables, as `measured` has written them, are more than a function may have."""
    return len(text.encode("utf-8", "surrogatepass")) > ENVIRONMENT_BYTES
