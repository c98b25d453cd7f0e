"""Which folders of the machine a deployment may name as code that is run in place: rules about text alone.

Whoever deploys may not choose what of the machine a function sees, so a path counts only where the operator has named
a folder above it, and only as it is written: nothing in it may mean another place than it says. What is really there
is looked at by `serverfull.reload.folders`, at each use anew.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serverfull.errors import InvalidParameterValue

MARKERS = ("hot-reload", "__local__")
"""Names of buckets that mean a folder instead, as in Floci and LocalStack."""

SHA256 = "hot-reloading-hash-not-available"
"""What stands for the hash of code that is run in place."""

MOST_BYTES = 4095
"""Bytes of a path, as the kernel takes it."""

MOST_NAME_BYTES = 255
"""Bytes of a name in it."""

OFF = "hot reload is off on this host: hot_reload.allowed_paths is empty"
"""Why no folder is run in place."""

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ADVICE = "Give the absolute path of a folder below one of hot_reload.allowed_paths, as it is, without links."


class FolderIdentity(NamedTuple):
    """Which folder of the machine one is: the numbers of its file system and in it."""

    device: int
    inode: int


class AllowedRoot(NamedTuple):
    """A folder below which code may be run in place.

    :param written: the names of the path as the operator wrote it.
    :param real: the same without symbolic links, as it was when the host started.
    """

    written: tuple[str, ...]
    real: tuple[str, ...]


class HotPath(NamedTuple):
    """A folder that may be used as far as its path says.

    :param root: the names that lead to the allowed folder.
    :param below: those that lead on from there.
    """

    root: tuple[str, ...]
    below: tuple[str, ...]

    def __str__(self) -> str:
        return "/" + "/".join((*self.root, *self.below))


def expanded(key: str, variables: Mapping[str, str]) -> str:
    """Give an S3Key with the variables ``$NAME`` and ``${NAME}`` of the host's environment in it.

    What they hold is put in as it is: a variable in it is not looked up again.

    :raises InvalidParameterValue: there is no such variable, or a ``$`` that begins none.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in variables:
            raise refused(key, f"the host's environment has no variable {name}")
        return variables[name]

    if "$" in _VARIABLE.sub("", key):
        raise refused(key, "a $ in it begins no variable")
    return _VARIABLE.sub(value, key)


def names_of(path: str, key: str) -> tuple[str, ...]:
    """Take an absolute path apart.

    :param key: what a message shows; it may come from variables, whose values are not for whoever deploys.
    :raises InvalidParameterValue: it could mean something else than it says.
    """
    if not path.startswith("/"):
        raise refused(key, "it is not absolute")
    if not path.isprintable():  # also what cannot be encoded
        raise refused(key, "it has characters that cannot be printed")
    if len(path.encode()) > MOST_BYTES:
        raise refused(key, f"it has more than {MOST_BYTES} bytes")
    names = path.removesuffix("/").split("/")[1:]
    for name in names:
        if name in ("", ".", ".."):
            raise refused(key, f"it has {name!r} among its names" if name else "it has empty names, as in //")
        if name != name.strip() or name.endswith("."):
            raise refused(key, "one of its names begins or ends with a space, or ends with a dot")
        if len(name.encode()) > MOST_NAME_BYTES:
            raise refused(key, f"one of its names has more than {MOST_NAME_BYTES} bytes")
    return tuple(names)


def located(path: str, key: str, roots: Sequence[AllowedRoot]) -> HotPath:
    """Say which allowed folder a path is below, name by name: ``/tmp`` does not allow ``/tmp-evil``.

    :param key: what a message shows.
    :raises InvalidParameterValue: none, or it could mean something else than it says.
    """
    names = names_of(path, key)
    for root in roots:
        for above in (root.written, root.real):
            if names[: len(above)] == above:
                return HotPath(root.real, names[len(above) :])
    raise refused(key, "it is below none of hot_reload.allowed_paths")


def refused(key: str, why: str) -> InvalidParameterValue:
    """Make the refusal of a path.

    :param key: the path as whoever deploys has given it.
    """
    shown = key if len(key) <= MOST_NAME_BYTES else f"{key[:MOST_NAME_BYTES]}…"
    return InvalidParameterValue(f"The folder {shown!r} cannot be run in place: {why}. {_ADVICE}")
