"""What has to be installed for folders to be watched; imported by whoever asks before anything is."""

from __future__ import annotations

import importlib.util

from serverfull.errors import ExtraMissing

EXTRA = "reload"
"""The extra of this package that brings what watches."""

_PACKAGES = ("watchfiles", "pathspec")


def missing() -> str | None:
    """Name a package that watches and is not installed; None: all are."""
    return next((package for package in _PACKAGES if importlib.util.find_spec(package) is None), None)


def check_installed(what: str) -> None:
    """Refuse what could not be watched.

    :param what: what needs it, for the message.
    :raises ExtraMissing: a package is not installed.
    """
    if (package := missing()) is not None:
        raise ExtraMissing(what, package, EXTRA)
