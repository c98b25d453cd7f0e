"""What code might try to get out of its sandbox, as a function that tries all of it, and the baits that it is after.

Deploy the function to a host, on the machine and with the settings that are to be judged, and call it::

    with baits() as bait:
        client.create_function(FunctionName="probes", Code={"ZipFile": package()}, Handler=HANDLER, …)
        client.invoke(FunctionName="probes", Payload=json.dumps({"bait": bait}))

It answers with an entry for each attempt: whether it got through, and what it got hold of or why it did not. Where
nothing holds it most get through; one that does not there either proves nothing.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

from serverfull.testing.escapes.baits import baits
from serverfull.testing.escapes.probes import PROBES

__all__ = ["HANDLER", "Attempt", "attempts", "baits", "package", "write"]

HANDLER = "probes.handler"
"""The handler of the function."""

_PROBES = Path(__file__).parent / "probes"


class Attempt(NamedTuple):
    """One attempt.

    :param name: by which the answer has it.
    :param group: what it is about.
    :param tries: what it tries.
    """

    name: str
    group: str
    tries: str


def attempts() -> list[Attempt]:
    """Give all of them, in the order in which they are made."""
    return [Attempt(name, group, (tried.__doc__ or "").strip()) for name, (group, tried) in PROBES.items()]


def write(folder: Path) -> Path:
    """Write the function into a folder, which is made; gives the folder."""
    shutil.copytree(_PROBES, folder / "probes", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def package() -> bytes:
    """Give the function as a zip archive."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for path in sorted(_PROBES.glob("*.py")):
            archive.write(path, f"probes/{path.name}")
    return written.getvalue()
