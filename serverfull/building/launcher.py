"""The ``__main__`` of a .pyz: unpacks it once, as compiled modules cannot be imported from an archive, and runs it.

A copy of this file is inside the archive; it uses the standard library alone. What it unpacks stays in the folder for
temporary files, which on Lambda is ``/tmp``, for the next start; starts at the same time do not disturb each other.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

DIGEST = ""
"""Of everything in the archive; written here when it is built."""

PYTHON = ""
"""``X.Y`` that the compiled modules inside are made for."""


def unpacked() -> Path:
    """Give the folder with the archive's files, and unpack them where nobody has."""
    folder = Path(tempfile.gettempdir(), f"serverfull-{os.getuid()}-{DIGEST}")
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix="serverfull-unpacking-"))
        with zipfile.ZipFile(Path(__file__).parent) as packed:
            packed.extractall(fresh)
            for entry in packed.infolist():
                if entry.external_attr >> 16 & 0o100:  # which zipfile drops
                    (fresh / entry.filename).chmod(0o755)
        try:
            fresh.rename(folder)
        except OSError:  # another start was faster
            shutil.rmtree(fresh)
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise SystemExit(f"{folder} belongs to somebody else, who could have changed what is inside: remove it")
    return folder


def main() -> None:
    """Run the function of the archive."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here != PYTHON:
        raise SystemExit(f"{sys.argv[0]} is built for Python {PYTHON}, and this is {here}: build it with that one")
    sys.path[0] = str(unpacked())
    from serverfull.lambda_mode.artifact import main as run

    run()


if __name__ == "__main__":
    main()
