"""Where code of a function that runs in the host's own process is imported from, beside its package.

The path of the process is every function's, so what a process of its own would have on ``sys.path`` is looked through
by the function's own `CodeNamespace`. Not covered: lines of ``.pth`` files that are code, as some editable installs
have: they would change the host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from serverfull.runtimes.child.folders import site_packages
from serverfull.runtimes.sandboxes.variables import virtualenvs


def folders_beside(root: Path, python_path: str, *, virtualenv: bool) -> list[str]:
    """Give the folders, the first one to be looked into first. Blocks.

    :param root: the folder of the package.
    :param python_path: the function's own PYTHONPATH; what is relative in it is below ``root``.
    :param virtualenv: whether a virtual environment beside the code counts.
    """
    found: list[str] = []
    for environment in virtualenvs(root) if virtualenv else ():
        if site := site_packages(environment):
            found += [site, *_named(site)]
    return [*found, *(str(root / entry) for entry in python_path.split(os.pathsep) if entry)]


def _named(site: str) -> Iterator[str]:
    """Give the folders that the ``.pth`` files of a folder name."""
    for file in sorted(Path(site).glob("*.pth")):
        with suppress(OSError, UnicodeDecodeError):
            for line in file.read_text(encoding="utf-8").splitlines():
                place = Path(site, line.strip())
                if line.strip() and not line.startswith(("#", "import ", "import\t")) and place.is_dir():
                    yield str(place)
