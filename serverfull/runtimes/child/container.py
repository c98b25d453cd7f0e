"""What our runtime client does first in a container: its lines to the host are in a folder that the engine has mounted.

The log goes into a named pipe, so that all that was written before an answer is there before the answer is; the engine
is not asked to carry it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from . import client, folders

_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


def begin(told: str) -> None:
    """Connect with the host, and become the runtime client of the function, or the wrapper that starts one.

    :param told: JSON with the folder of the lines, the handler, the folders that it is imported from before Python's
        own, in which ``{python}`` stands for this one's version, the folders of virtual environments, the folder that
        changes while it runs, if any, and the program that wraps the client, if any.
    """
    order = json.loads(told)
    log = os.open(os.path.join(order["host"], "log"), os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    line = client.connect(os.path.join(order["host"], "api"))
    series = ".".join(str(number) for number in sys.version_info[:2])
    path = [folder.replace("{python}", series) for folder in order["path"]]
    if order["wrapper"]:
        _execute(line.detach(), path, order)
    folders.use(path, order["virtualenvs"], order["live"])
    client.main(line, order["handler"])


def _execute(line: int, path: list[str], order: dict[str, Any]) -> None:
    os.set_inheritable(line, True)
    part = {"line": line, "handler": order["handler"], "path": path, "control": -1}
    told = json.dumps({**part, "virtualenvs": order["virtualenvs"], "live": order["live"]})
    command = [*order["wrapper"], sys.executable, "-s", _MAIN, "client", told]
    try:
        os.execvp(command[0], command)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        sys.stderr.write(f"fork/exec {command[0]}: {os.strerror(error.errno or 0).lower()}\n")
        sys.exit(127)
