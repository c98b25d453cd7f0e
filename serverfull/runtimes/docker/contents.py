"""Looks into an image, by way of a container that is never started. Called on a thread."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from serverfull.runtimes.docker.options import OPT

_SHELL = "/bin/sh"

_EXTENSIONS = f"{OPT}/extensions"


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image has.

    :param has_shell: whether a program of it can be started with its output led elsewhere.
    :param extensions: the names of its external extensions.
    """

    has_shell: bool
    extensions: tuple[str, ...]


def look_into(client: Any, image: str, labels: Mapping[str, str]) -> Contents:
    """Say what an image has.

    :param client: of the engine.
    :param labels: of the container, by which it is found again where it stays.
    """
    made = client.create_container_from_config({"Image": image, "Cmd": [_SHELL], "Labels": dict(labels)})["Id"]
    try:
        archive = f"{client.base_url}/v{client.api_version}/containers/{made}/archive"
        return Contents(_is_there(client, archive, _SHELL), _extensions(client, archive))
    finally:
        with suppress(Exception):  # what is left is found by its label
            client.remove_container(made, force=True)


def _is_there(client: Any, archive: str, path: str) -> bool:
    answer = client.head(archive, params={"path": path}, timeout=client.timeout)
    return bool(answer.status_code == 200)


def _extensions(client: Any, archive: str) -> tuple[str, ...]:
    """Give the names of what is in the folder of extensions and is no folder itself; the engine sends all of it."""
    folder = f"{_EXTENSIONS}/."  # what a symbolic link leads to, and not the link
    if not _is_there(client, archive, folder):
        return ()
    plain = {"Accept-Encoding": "identity"}
    with (
        closing(
            client.get(archive, params={"path": folder}, headers=plain, timeout=client.timeout, stream=True)
        ) as answer,
        tarfile.open(fileobj=answer.raw, mode="r|") as files,
    ):
        paths = [(PurePosixPath(file.name).parts, file.isdir()) for file in files]
    return tuple(sorted(parts[0] for parts, is_folder in paths if len(parts) == 1 and not is_folder))
