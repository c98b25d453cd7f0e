"""The variables of the host's environment that paths of a deployment may name."""

from __future__ import annotations

import os
from collections.abc import Mapping


def host_variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Give them.

    :param environ: the environment; None is the process's own.
    """
    return dict(os.environ if environ is None else environ)
