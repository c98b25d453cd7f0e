"""What build commands get of the host's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from serverfull.config.names import PREFIX


def build_variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Give all variables but the host's own settings: a build is started as its owner would start it by hand.

    :param environ: the environment; None: that of the process.
    """
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
