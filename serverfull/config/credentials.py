"""The AWS credentials that the host was started with, for functions that are to have them too.

AWS: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping

ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
SECRET_ACCESS_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - a variable's name
SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - a variable's name


def host_credentials(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give those of the three variables of credentials that the environment has; empty ones count as missing.

    :param environ: the environment; None is the process's own.
    """
    environ = os.environ if environ is None else environ
    return {name: environ[name] for name in (ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN) if environ.get(name)}
