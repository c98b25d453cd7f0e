"""Makes the artifacts: a zip for Lambda's Python runtimes, a .pyz for any Python, and a bootstrap without Python."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import MappingProxyType

from serverfull.building import launcher
from serverfull.building.archive import write_zip
from serverfull.building.freezing import freeze
from serverfull.building.inspection import Inspection, inspect
from serverfull.building.plan import Built, Plan, lambda_platforms, this_python
from serverfull.building.staging import not_inside, stage
from serverfull.errors import BuildFailed, ConfigurationError, ExtraMissing
from serverfull.lambda_mode.names import HANDLER

_DIRECT_UPLOAD = 50 * 1024 * 1024
_UNZIPPED = 250 * 1024 * 1024
_PROVIDED = frozenset(
    {"awslambdaric", "boto3", "botocore", "dateutil", "jmespath", "s3transfer", "simplejson", "six", "urllib3"}
)
"""What Lambda's runtimes for Python have installed: AWS's client and SDK, and what these need."""


def build_artifact(plan: Plan, kind: str, output: str | None = None) -> Built:
    """Build an artifact.

    :param kind: ``zip``, ``pyz`` or ``bootstrap``.
    :param output: the file; None names it after the function. A folder, or a name that ends in ``/``, is written into.
    :raises TargetError: the target cannot be turned into functions.
    :raises NotFoundError: it has no such function.
    :raises ExtraMissing: a bootstrap needs PyInstaller.
    :raises ConfigurationError: options do not go together, or the file would be written over what goes in.
    :raises BuildFailed: a step failed, or the file cannot be written.
    """
    _check(plan, kind)
    found = inspect(plan)
    path = _output(output, "bootstrap" if kind == "bootstrap" else f"{_file_name(found.function)}.{kind}")
    _check_output(path, [*map(Path, found.files), *plan.include])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="serverfull-build-") as folder:
            return _RECIPES[kind](plan, found, Path(folder), path)
    except OSError as error:
        raise BuildFailed(f"{path} cannot be made: {error}") from error


def _check(plan: Plan, kind: str) -> None:
    if plan.python_version is not None:
        major, _, minor = plan.python_version.partition(".")
        if major != "3" or not minor.isdecimal() or int(minor) < 11:
            raise ConfigurationError(f"--python-version takes 3.11 and later, not {plan.python_version}")
    if kind != "bootstrap":
        return
    if plan.for_another_python:
        raise ConfigurationError(
            "a bootstrap holds the Python that builds it: leave out --python-platform and --python-version, and build "
            "on a machine like the one that runs it"
        )
    if importlib.util.find_spec("PyInstaller") is None:
        raise ExtraMissing("--format bootstrap", "PyInstaller", "build")


def _output(output: str | None, name: str) -> Path:
    path = Path(output or ".")
    return path / name if path.is_dir() or str(output).endswith("/") else path


def _file_name(function: str) -> str:
    """Make the name of a file of a function's name, which a fetcher of one's own may give any form."""
    return re.sub(r"[^\w-]+", "_", function).strip("_") or "function"


def _check_output(path: Path, sources: Iterable[Path]) -> None:
    """Refuse to write over what goes in, or to where the next build would take it in."""
    for source in sources:
        if path.resolve().is_relative_to(source.resolve()):
            raise ConfigurationError(f"{path} is in {source}, which goes in: name another place with --output")


# -------------------------------------------------------------------------------------------------------------- recipes


def _zip(plan: Plan, found: Inspection, folder: Path, path: Path) -> Built:
    python = plan.python_version or this_python()
    platforms = plan.platforms or lambda_platforms(python)
    stage(plan, found, folder, platforms, client=False)
    write_zip(folder, path)
    architecture = "arm64" if "aarch64" in platforms[0] else "x86_64"
    notes = [f"runtime python{python}, architecture {architecture}, handler {HANDLER}"]
    notes += _lacking(found, folder, provided=_PROVIDED)
    if path.stat().st_size > _DIRECT_UPLOAD:
        notes.append("it is over 50 MB: Lambda takes it by way of S3 only")
    if sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > _UNZIPPED:
        notes.append("it is over 250 MB unpacked, which Lambda refuses: use a container image")
    return Built(path, tuple(notes))


def _pyz(plan: Plan, found: Inspection, folder: Path, path: Path) -> Built:
    python = plan.python_version or this_python()
    platforms = plan.platforms or (lambda_platforms(python) if plan.python_version else ())
    stage(plan, found, folder, platforms, client=True)
    lacking = _lacking(found, folder)
    source = Path(launcher.__file__).read_text(encoding="utf-8")
    source = source.replace('DIGEST = ""', f'DIGEST = "{_digest(folder)}"').replace(
        'PYTHON = ""', f'PYTHON = "{python}"'
    )
    (folder / "__main__.py").write_text(source, encoding="utf-8")
    write_zip(folder, path, prefix=b"#!/usr/bin/env python3\n")
    path.chmod(0o755)
    return Built(path, (f"run it as the Lambda's runtime with Python {python}: python {path.name}", *lacking))


def _bootstrap(plan: Plan, found: Inspection, folder: Path, path: Path) -> Built:
    staged, work = folder / "staged", folder / "work"
    staged.mkdir()
    stage(plan, found, staged, (), client=True)
    freeze(found, staged, work)
    shutil.copyfile(work / "dist" / "bootstrap", path)
    path.chmod(0o755)
    upload = path.with_name(path.name + ".zip")
    packed = folder / "packed"
    packed.mkdir()
    shutil.copyfile(path, packed / "bootstrap")
    write_zip(packed, upload, programs=["bootstrap"])
    library, version = platform.libc_ver()
    needs = (
        f"it is built with {library or 'the C library'} {version} and needs one that is not much older; "
        "provided.al2023 has glibc 2.34: build in an image of that system to run there"
    )
    ready = f"{upload} is ready for upload: runtime provided.*, any handler"
    return Built(path, (ready, needs, *_lacking(found, staged)))


_RECIPES: MappingProxyType[str, Callable[[Plan, Inspection, Path, Path], Built]] = MappingProxyType(
    {"zip": _zip, "pyz": _pyz, "bootstrap": _bootstrap}
)


def _lacking(found: Inspection, folder: Path, *, provided: Collection[str] = ()) -> list[str]:
    """Say what the function imports and nothing brings; on Lambda a layer might, so that it is no error."""
    lacking = not_inside(found, folder, provided=provided)
    if not lacking:
        return []
    listed = ", ".join(f"{name} ({file})" for name, file in lacking.items())
    advice = "Name packages in a file for --requirements, and files with --include"
    return [f"WARNING: the function imports what is not inside: {listed}. {advice}"]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        program = path.stat().st_mode & stat.S_IXUSR
        digest.update(b"%b\0%d\0" % (path.relative_to(folder).as_posix().encode(), program) + path.read_bytes())
    return digest.hexdigest()[:20]
