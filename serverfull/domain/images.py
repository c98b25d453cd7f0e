"""Container images, as far as functions are concerned: what names one, and what an engine tells of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# A registry with its port, a path of lower case, a tag and a digest, as engines of containers read them:
# https://pkg.go.dev/github.com/distribution/reference
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


class ImageFacts(NamedTuple):
    """What an engine tells of an image that it has.

    :param name: by which it was found.
    :param pinned: ``repository@sha256:digest``, which means the same image at any time.
    :param names: all that it has, each with a tag.
    :param labels: what its Dockerfile says by ``LABEL``, or who built it.
    :param architecture: of the machines that it is for, by AWS's name where AWS has one; empty: it does not tell.
    :param size_bytes: of all its layers.
    :param created: when it was built, in seconds since the epoch; 0: it does not tell.
    """

    name: str
    pinned: str
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    architecture: str = ""
    size_bytes: int = 0
    created: float = 0.0

    @property
    def digest(self) -> str:
        """The digest in hexadecimal."""
        return self.pinned.rpartition("@sha256:")[2]


def is_image_name(name: str) -> bool:
    """Say whether a name can be that of an image."""
    return _IMAGE.fullmatch(name) is not None


def tag_of(name: str) -> str:
    """Give the tag of an image's name: ``latest`` where it has none."""
    repository, colon, tag = name.partition("@")[0].rpartition(":")
    return tag if colon and repository and "/" not in tag else "latest"


def repository_of(name: str) -> str:
    """Give the name of an image without its tag and its digest."""
    name = name.partition("@")[0]
    repository, colon, tag = name.rpartition(":")
    return repository if colon and "/" not in tag else name
