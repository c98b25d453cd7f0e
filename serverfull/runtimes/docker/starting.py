"""What the engine is asked for the start of a container and about its end, and how its refusals are worded.

Everything here is called on a thread, with the engine's client.
"""

from __future__ import annotations

import base64
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serverfull.domain.json_functions import loads
from serverfull.runtimes.docker.options import TASK
from serverfull.runtimes.docker.site import remove_container
from serverfull.runtimes.docker.vitals import Vitals
from serverfull.runtimes.sandboxes.launching import Unstartable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serverfull.domain.hot_paths import FolderIdentity

ENDING = 5.0
"""Seconds that the engine has to say with which status a container has ended."""

UNEXECUTED = (126, 127)
"""The statuses that the engine's own init ends with where it cannot execute a program."""

_REASONS = (
    "no such file or directory",
    "executable file not found",
    "permission denied",
    "exec format error",
    "not a directory",
    "file name too long",
    "too many levels of symbolic links",
    "invalid argument",
)

_OF_FOLDERS = ("lstat", "mkdir", "chdir")

_FOUND, _IS_WRONG = 200, 400

_FOLDER, _LINK, _EXECUTABLE = 1 << 31, 1 << 27, 0o111
"""Bits of a mode as programs in Go have it."""


class ImageGone(Exception):
    """The engine has the image no more."""


class PackageReplaced(Exception):
    """What a container has as its package is not what it was to have: somebody has put something in its place."""


@dataclass(frozen=True, slots=True)
class Started:
    """A container that has been started.

    :param vitals: of its processes; None: they have ended already.
    :param address: in its network; empty: it has none.
    """

    id: str
    vitals: Vitals | None
    address: str


def start(
    client: Any,
    name: str,
    body: Mapping[str, Any],
    program: str,
    attach: Callable[[str], object],
    package: FolderIdentity | None = None,
) -> Started:
    """Make a container and start it; one that cannot be started is removed.

    :param program: that is executed in the end.
    :param attach: called with its id before it is started.
    :param package: which folder its package has to be, for the engine goes by a path, which others may have changed.
        None: nobody else can.
    :raises Unstartable: its program cannot be executed, or not in its folder.
    :raises ImageGone: its image is not there.
    :raises PackageReplaced: its package is another folder.
    """
    from docker.errors import APIError, NotFound

    try:
        made = client.create_container_from_config(body, name)["Id"]
    except NotFound as error:
        raise ImageGone(error.explanation) from None
    except APIError as error:  # it looks for the folder then, and calls all that is wrong with that its own fault
        raise _of_folder(error.explanation or "", body) or error from None
    try:
        attach(made)
        client.start(made)
        found = client.inspect_container(made)
        vitals = None
        if found["State"]["Pid"]:
            with suppress(ProcessLookupError):
                if package is not None:
                    _check_package(found["State"]["Pid"], package)
                vitals = Vitals(found["State"]["Pid"], made)
        networks = found["NetworkSettings"]["Networks"].values()
        return Started(made, vitals, next((one["IPAddress"] for one in networks), ""))
    except BaseException as error:
        remove_container(client, made)
        if isinstance(error, APIError) and error.status_code == _IS_WRONG:
            said = error.explanation or ""
            raise _of_folder(said, body) or _of_program(said, program) or error from None
        raise


def _check_package(pid: int, package: FolderIdentity) -> None:
    """See what has been mounted, where this host may look; one that may not is no administrator of the machine."""
    with suppress(PermissionError, FileNotFoundError):  # the latter where it has ended already
        found = Path(f"/proc/{pid}/root{TASK}").stat()
        if (found.st_dev, found.st_ino) != package:
            raise PackageReplaced


def exit_code(client: Any, name: str) -> int:
    """Ask for the status of a container whose processes are gone."""
    deadline = time.monotonic() + ENDING
    state = client.inspect_container(name)["State"]
    if state["Running"] and time.monotonic() < deadline:
        return int(client.wait(name, timeout=ENDING)["StatusCode"])
    return int(state["ExitCode"])


def why_not_executed(client: Any, name: str, program: str, path: str) -> str | None:
    """Say why a program could not be executed in a container that has ended; None: it could be, for all that is seen.

    The engine's own init ends with the status that such a program may have ended with too.

    :param path: the folders that it is looked for in, where its name has none.
    """
    places = [program] if "/" in program else [f"{folder}/{program}" for folder in path.split(":") if folder]
    modes = [mode for mode in (_mode(client, name, place) for place in places) if mode is not None]
    if not modes:
        return "no such file or directory"
    return (
        None
        if any(mode & _LINK or (mode & _EXECUTABLE and not mode & _FOLDER) for mode in modes)
        else "permission denied"
    )


def _mode(client: Any, name: str, path: str) -> int | None:
    """Give the mode of a file of a container, as the engine has it; None: there is none."""
    url = f"{client.base_url}/v{client.api_version}/containers/{name}/archive"
    answer = client.head(url, params={"path": path}, timeout=client.timeout)
    if answer.status_code != _FOUND:
        return None
    return int(loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))["mode"])


def _of_folder(said: str, body: Mapping[str, Any]) -> Unstartable | None:
    if not any(deed in said for deed in _OF_FOLDERS):
        return None
    folder = body.get("WorkingDir") or "the image's folder"
    return _unstartable(f"chdir {folder}", said)


def _of_program(said: str, program: str) -> Unstartable | None:
    return _unstartable(f"fork/exec {program}", said)


def _unstartable(deed: str, said: str) -> Unstartable | None:
    """Word what cannot be done, and why; None: the engine gives another reason, which is not the function's."""
    reason = next((reason for reason in _REASONS if reason in said), None)
    return None if reason is None else Unstartable(f"{deed}: {reason}")
