"""The variables of the host's environment: paths of a deployment may name them, and build commands get them."""

from __future__ import annotations

import os
from collections.abc import Mapping


def host_variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Give them.

    :param environ: the environment; None is the process's own.
    """
    return dict(os.environ if environ is None else environ)
