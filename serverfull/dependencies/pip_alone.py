"""Runs pip and lets it start no other program: by path, in the Python that is installed for, which may be 3.8.

Wheels are unpacked, and none of their code runs. Whatever else pip may be led to, by the metadata of a wheel too, such
as a repository or a source distribution, would have to be fetched or built by another program, whose code would be the
package's. ``--only-binary`` does not say that of what an address names.
"""

from __future__ import annotations

import os
import sys
from typing import Any

_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")

WITHOUT_PIP = 77
"""The exit code where this Python has no pip."""


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _PROGRAMS:
        return
    program = os.fsdecode(arguments[0]).rpartition("/")[2] if arguments and arguments[0] else ""
    if program.startswith("ld-musl"):  # asked for its version, which says what wheels fit
        return
    raise PermissionError(f"nothing is built or fetched with other programs here, such as {program or event}")


def main() -> None:
    """Run pip with the arguments of this program."""
    import importlib.util
    import runpy

    if importlib.util.find_spec("pip") is None:
        sys.exit(WITHOUT_PIP)
    sys.addaudithook(_refuse)
    sys.argv[0] = "pip"
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
