"""Makes one executable of a staged folder, with PyInstaller.

PyInstaller finds imports by reading the code. So that a bootstrap holds what the other formats hold, no less and no
more, everything in the folder is named to it, and everything that is installed here and not in the folder is kept out.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from serverfull.building.inspection import Inspection
from serverfull.errors import BuildFailed

_NO_DATA = (".py", ".pyi", ".typed")
_TESTS = frozenset({"test", "tests"})


def freeze(found: Inspection, staged: Path, work: Path) -> None:
    """Write ``dist/bootstrap`` below a folder for work.

    :raises BuildFailed: PyInstaller failed.
    """
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--noconfirm", "--log-level=ERROR", "--name=bootstrap"]
    command += [f"--distpath={work}/dist", f"--workpath={work}/work", f"--specpath={work}", f"--paths={staged}"]
    command += [f"--hidden-import={name}" for name in sorted({"runtime_client", *_modules(found, staged)})]
    command += [f"--exclude-module={name}" for name in sorted(_elsewhere(staged))]
    command += [f"--add-data={path}:{path.parent.relative_to(staged)}" for path in _data(staged)]
    command.append(str(staged / "serverfull" / "lambda_mode" / "artifact.py"))
    # Hash seeds decide the order in which the bytecode of sets is written.
    environment = {**os.environ, "PYTHONPATH": str(staged), "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if done.returncode:
        raise BuildFailed(f"PyInstaller failed: {done.stderr.strip()[-2000:]}")


def _modules(found: Inspection, staged: Path) -> Iterator[str]:
    """Give the modules of a folder, but the tests of installed packages that nothing has loaded."""
    own = {Path(file).name for file in found.files}
    for source in staged.rglob("*.py"):
        inside = source.relative_to(staged)
        name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        if inside.parts[0] in own or name in found.modules or _TESTS.isdisjoint(inside.parts):
            yield name
    for source in staged.rglob("*.so"):
        inside = source.relative_to(staged)
        yield ".".join((*inside.parts[:-1], inside.name.partition(".")[0]))


def _elsewhere(staged: Path) -> set[str]:
    """Give the outermost names that are importable here and not from a folder."""
    inside = {path.name.partition(".")[0] for path in staged.iterdir()}
    return set(importlib.metadata.packages_distributions()) - inside - sys.stdlib_module_names


def _data(staged: Path) -> Iterator[Path]:
    """Give the files that are no Python code. Compiled modules are among them: some are loaded by their path."""
    return (path for path in sorted(staged.rglob("*")) if path.is_file() and path.suffix not in _NO_DATA)
