"""Says what is executed in a container: our own client, what the package brings, or what the image starts by itself.

Our own client runs functions for Python and speaks through a socket that is mounted; everything else knows host and
port only, and is found by the address of the container's network. The image's own entry point gets the handler's name,
as those of AWS's images do.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/images-create.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from serverfull.domain.deployed_handler import WRAPPER_VARIABLE
from serverfull.domain.json_functions import dumps
from serverfull.runtimes.docker.options import CLIENT, HOST, OPT, TASK
from serverfull.runtimes.docker.shells import HOLDING, LEADING, TELLING
from serverfull.runtimes.sandboxes.layers import extension_programs
from serverfull.runtimes.sandboxes.variables import python_path, virtualenvs
from serverfull.runtimes.sandboxes.wanted import Unrunnable, chosen_client

if TYPE_CHECKING:
    from serverfull.runtimes.docker.images import Image
    from serverfull.runtimes.sandboxes.wanted import Client, Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is executed.

    :param program: the function's own, behind what shells do before.
    :param folder: where; None: the image says.
    :param own_client: it is our own client.
    :param led: its output goes into the named pipe; else the engine has to be asked for it.
    :param extensions: the names of the programs in ``/opt/extensions``.
    """

    program: str
    entry_point: Sequence[str]
    command: Sequence[str]
    folder: str | None
    own_client: bool
    led: bool
    extensions: Sequence[str] = ()


def find_program(function: Wanted, image: Image, client: Client) -> Program:
    """Say what is executed for a function.

    :param client: of functions that do not choose.
    :raises Unrunnable: what is to be executed is not there.
    """
    extensions = _extensions(function, image)
    if not extensions:
        return _find_program(function, image, client)
    if not image.contents.has_shell:
        whose = "Its layers bring" if function.layers else "It has"
        raise Unrunnable(
            f"{whose} extensions in {OPT}/extensions, and the image {image.name} has no shell, /bin/sh, to run its "
            "runtime beside them"
        )
    found = _find_program(function, image, client)
    first = [*TELLING, *found.entry_point] if found.own_client else found.entry_point
    return replace(found, entry_point=[*HOLDING, *first], extensions=extensions)


def _find_program(function: Wanted, image: Image, client: Client) -> Program:
    if function.image_uri:
        return _of_image(function, image)
    if function.runtime.startswith("provided"):
        return _led([_bootstrap(function)], [], TASK, image)
    if function.runtime.startswith("python") and chosen_client(function.identity.function.tags, client) == "own":
        return _own_client(function)
    if not image.entry_point:
        raise Unrunnable(f"The image {image.name} has no entry point that could run {function.handler}")
    return _led(image.entry_point, [function.handler], TASK, image)


def handler_of(function: Wanted, program: Program) -> str:
    """Say what the variable ``_HANDLER`` is: of an image, what its command begins with."""
    command = list(program.command)
    return function.handler if not function.image_uri or not command else command[-1]


def _extensions(function: Wanted, image: Image) -> Sequence[str]:
    """Give the names of its extensions; what is mounted for layers hides what the image has there."""
    if not function.layers:
        return image.contents.extensions
    return sorted({path.name for layer in function.layers for path in extension_programs(layer)})


def _of_image(function: Wanted, image: Image) -> Program:
    chosen = function.image_config
    entry_point = image.entry_point if chosen.entry_point is None else chosen.entry_point
    command = image.command if chosen.command is None else chosen.command
    if not entry_point and not command:
        raise Unrunnable(
            f"The image {image.name} has neither entry point nor command, and nor has the function's ImageConfig",
            "FunctionError.InvalidEntryPoint",
        )
    return _led(entry_point, command, chosen.working_directory, image)


def _own_client(function: Wanted) -> Program:
    wrapper = function.identity.function.environment.get(WRAPPER_VARIABLE, "")
    told = {
        "host": HOST,
        "handler": function.handler,
        "path": python_path(Path(TASK), Path(OPT), "{python}"),
        "wrapper": [wrapper] if wrapper else [],
        "virtualenvs": virtualenvs(Path(TASK)) if function.virtualenv else [],
        "live": TASK if function.live else "",
    }
    command = ["-s", f"{CLIENT}/__main__.py", "container", dumps(told)]
    python = "python3"
    return Program(program=python, entry_point=[python], command=command, folder=TASK, own_client=True, led=True)


def _led(entry_point: Sequence[str], command: Sequence[str], folder: str | None, image: Image) -> Program:
    program, led = next(iter((*entry_point, *command)), ""), image.contents.has_shell
    if led:
        command, entry_point = [*entry_point, *command], LEADING
    return Program(program=program, entry_point=entry_point, command=command, folder=folder, own_client=False, led=led)


def _bootstrap(function: Wanted) -> str:
    """Find the executable that a function of an OS-only runtime brings, in its package or in a layer."""
    said = "is missing"
    for folder, seen in ((function.root, TASK), *((layer, OPT) for layer in reversed(function.layers))):
        file = folder / "bootstrap"
        if file.is_file():
            if os.access(file, os.X_OK):
                return f"{seen}/bootstrap"
            said = "is not executable (chmod +x bootstrap, before it is packed)"
    raise Unrunnable(
        f"{function.runtime} needs a file named bootstrap in the package or in a layer, and it {said}",
        "FunctionError.InvalidEntryPoint",
    )
