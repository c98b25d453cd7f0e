"""Looks into an image, by way of a container that is never started. Called on a thread."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from serverfull.runtimes.docker.options import OPT

_SHELL = "/bin/sh"

_EXTENSIONS = f"{OPT}/extensions"

_MOST = 64
"""Names that are remembered; the eleventh extension is one too many already."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image has.

    :param has_shell: whether a program of it can be started with its output led elsewhere.
    :param extensions: the names of its external extensions.
    :param filled: the folders with something in them, of those that were asked about.
    """

    has_shell: bool
    extensions: tuple[str, ...]
    filled: tuple[str, ...]


def look_into(client: Any, image: str, labels: Mapping[str, str], folders: Sequence[str] = ()) -> Contents:
    """Say what an image has.

    :param client: of the engine.
    :param labels: of the container, by which it is found again where it stays.
    :param folders: that may be empty.
    """
    made = client.create_container_from_config({"Image": image, "Cmd": [_SHELL], "Labels": dict(labels)})["Id"]
    try:
        archive = f"{client.base_url}/v{client.api_version}/containers/{made}/archive"
        names = (name for name, is_folder in _listed(client, archive, _EXTENSIONS) if not is_folder)
        return Contents(
            has_shell=_is_there(client, archive, _SHELL),
            extensions=tuple(sorted(islice(names, _MOST))),
            filled=tuple(folder for folder in folders if any(_listed(client, archive, folder))),
        )
    finally:
        with suppress(Exception):  # what is left is found by its label
            client.remove_container(made, force=True, v=True)


def _is_there(client: Any, archive: str, path: str) -> bool:
    answer = client.head(archive, params={"path": path}, timeout=client.timeout)
    return bool(answer.status_code == 200)


def _listed(client: Any, archive: str, folder: str) -> Iterator[tuple[str, bool]]:
    """Give the names of what is in a folder, and which of that are folders; the engine sends files with all in them."""
    path = f"{folder}/."  # what a symbolic link leads to, and not the link
    if not _is_there(client, archive, path):
        return
    plain = {"Accept-Encoding": "identity"}
    with (
        closing(
            client.get(archive, params={"path": path}, headers=plain, timeout=client.timeout, stream=True)
        ) as answer,
        tarfile.open(fileobj=answer.raw, mode="r|") as files,
    ):
        for file in files:
            parts = PurePosixPath(file.name).parts
            if len(parts) == 1:
                yield parts[0], file.isdir()
