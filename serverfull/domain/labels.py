"""The configuration of a function in the labels of its container image: ``serverfull.timeout=30``.

Labels are made into a document of the shape that `serverfull.domain.manifests` reads, so that what is allowed is said
there alone. An image inherits the labels of the one that it is made from; an empty label takes back what that says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serverfull.domain.manifests import Manifest, parse_manifest
from serverfull.domain.names import shown
from serverfull.errors import ManifestInvalid

PREFIX = "serverfull."

_NUMBERS = {
    "ephemeral-storage": ("EphemeralStorage", "Size"),
    "memory-size": ("MemorySize",),
    "reserved-concurrency": ("ReservedConcurrentExecutions",),
    "timeout": ("Timeout",),
}
_TEXTS = {
    "application-log-level": ("LoggingConfig", "ApplicationLogLevel"),
    "description": ("Description",),
    "log-format": ("LoggingConfig", "LogFormat"),
    "log-group": ("LoggingConfig", "LogGroup"),
    "recursive-loop": ("RecursiveLoop",),
    "system-log-level": ("LoggingConfig", "SystemLogLevel"),
}
_GROUPS = {"environment.": ("Environment", "Variables"), "tags.": ("Tags",)}
_NOT_CONFIGURATION = ("function",)
_MOST_DIGITS = 18


def manifest_of(labels: Mapping[str, str], image: str) -> Manifest:
    """Read the configuration of a function that is an image.

    :param image: its name, for the message of a refusal.
    :raises ManifestInvalid: a label that begins with ``serverfull.`` is not known, or has a wrong value.
    """
    document: dict[str, Any] = {}
    for label, text in sorted(labels.items()):
        key = label.removeprefix(PREFIX)
        if label.startswith(PREFIX) and key not in _NOT_CONFIGURATION and text:
            path, value = _member(key, text, f"the label {label} of the image {image}")
            place = document
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
    return parse_manifest(document, f"the labels of the image {image}", "Image")


def _member(key: str, text: str, where: str) -> tuple[tuple[str, ...], Any]:
    if key in _NUMBERS:
        if not text.strip().isdecimal() or len(text) > _MOST_DIGITS:
            raise ManifestInvalid(where, f"it has to be a whole number, not {shown(text)!r}")
        return _NUMBERS[key], int(text)
    if key in _TEXTS:
        return _TEXTS[key], text
    for group, path in _GROUPS.items():
        if key.startswith(group) and key != group:
            return (*path, key.removeprefix(group)), text
    known = [*_NUMBERS, *_TEXTS, *(f"{group}NAME" for group in _GROUPS)]
    raise ManifestInvalid(where, f"there is none of that name; there are {', '.join(sorted(known))}")
