"""Makes the artifacts: a zip for Lambda's Python runtimes, a .pyz for any Python, and a bootstrap without Python."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

from serverfull.building import launcher
from serverfull.building.archive import write_zip
from serverfull.building.inspection import Inspection, inspect
from serverfull.building.plan import Built, Plan, lambda_platforms, this_python
from serverfull.building.staging import packages_left_out, stage
from serverfull.errors import BuildFailed, ConfigurationError, ExtraMissing
from serverfull.lambda_mode.names import ARTIFACT_MODULE, HANDLER

_DIRECT_UPLOAD = 50 * 1024 * 1024
_UNZIPPED = 250 * 1024 * 1024


def build_artifact(plan: Plan, kind: str, output: Path | None = None) -> Built:
    """Build an artifact.

    :param kind: ``zip``, ``pyz`` or ``bootstrap``.
    :param output: the file; None names it after the function. A folder is written into.
    :raises TargetError: the target cannot be turned into functions.
    :raises NotFoundError: it has no such function.
    :raises ExtraMissing: a bootstrap needs PyInstaller.
    :raises ConfigurationError: options do not go together.
    :raises BuildFailed: a step failed.
    """
    _check(plan, kind)
    found = inspect(plan)
    path = _output(output, "bootstrap" if kind == "bootstrap" else f"{found.function}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="serverfull-build-") as folder:
        return _RECIPES[kind](plan, found, Path(folder), path)


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


def _output(output: Path | None, name: str) -> Path:
    if output is None:
        return Path(name)
    return output / name if output.is_dir() else output


# -------------------------------------------------------------------------------------------------------------- recipes


def _zip(plan: Plan, found: Inspection, folder: Path, path: Path) -> Built:
    python = plan.python_version or this_python()
    platforms = plan.platforms or lambda_platforms(python)
    stage(plan, found, folder, platforms, client=False)
    write_zip(folder, path)
    architecture = "arm64" if "aarch64" in platforms[0] else "x86_64"
    notes = [f"runtime python{python}, architecture {architecture}, handler {HANDLER}"]
    if path.stat().st_size > _DIRECT_UPLOAD:
        notes.append("it is over 50 MB: Lambda takes it by way of S3 only")
    if sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > _UNZIPPED:
        notes.append("it is over 250 MB unpacked, which Lambda refuses: use a container image")
    return Built(path, tuple(notes))


def _pyz(plan: Plan, found: Inspection, folder: Path, path: Path) -> Built:
    python = plan.python_version or this_python()
    platforms = plan.platforms or (lambda_platforms(python) if plan.python_version else ())
    stage(plan, found, folder, platforms, client=True)
    source = Path(launcher.__file__).read_text(encoding="utf-8")
    source = source.replace('DIGEST = ""', f'DIGEST = "{_digest(folder)}"').replace(
        'PYTHON = ""', f'PYTHON = "{python}"'
    )
    (folder / "__main__.py").write_text(source, encoding="utf-8")
    write_zip(folder, path, prefix=b"#!/usr/bin/env python3\n")
    path.chmod(0o755)
    return Built(path, (f"run it as the Lambda's runtime with Python {python}: python {path.name}",))


def _bootstrap(plan: Plan, found: Inspection, folder: Path, path: Path) -> Built:
    staged, work = folder / "staged", folder / "work"
    staged.mkdir()
    stage(plan, found, staged, (), client=True)
    _freeze(found, staged, work)
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
    return Built(path, (f"{upload} is ready for upload: runtime provided.*, any handler", needs))


_RECIPES: MappingProxyType[str, Callable[[Plan, Inspection, Path, Path], Built]] = MappingProxyType(
    {"zip": _zip, "pyz": _pyz, "bootstrap": _bootstrap}
)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


# ---------------------------------------------------------------------------------------------------------- PyInstaller


def _freeze(found: Inspection, staged: Path, work: Path) -> None:
    """Run PyInstaller over a staged folder.

    It finds imports by reading the code, so what is imported by name is named to it, and what lambda mode never imports
    is kept out.
    """
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--noconfirm", "--log-level=ERROR", "--name=bootstrap"]
    command += [f"--distpath={work}/dist", f"--workpath={work}/work", f"--specpath={work}", f"--paths={staged}"]
    command += [f"--hidden-import={name}" for name in sorted(_imported(found, staged))]
    command += [f"--exclude-module={name}" for name in packages_left_out(found.modules, client=True)]
    command += [f"--add-data={path}:{path.parent.relative_to(staged)}" for path in _data(staged)]
    command.append(str(staged / "serverfull" / "lambda_mode" / "artifact.py"))
    # Hash seeds decide the order in which the bytecode of sets is written.
    environment = {**os.environ, "PYTHONPATH": str(staged), "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
    if done.returncode:
        raise BuildFailed(f"PyInstaller failed: {done.stderr.strip()[-2000:]}")


def _imported(found: Inspection, staged: Path) -> Iterator[str]:
    """Give the modules that are imported by name: loaded ones, and all that is ours, the client's or the function's."""
    yield from (name for name in found.modules if _is_staged(name.partition(".")[0], staged))
    yield from (ARTIFACT_MODULE, "runtime_client")
    for part in ("serverfull", "awslambdaric", *(Path(file).name for file in found.files)):
        path = staged / part
        for source in [path] if path.is_file() else path.rglob("*.py"):
            if source.suffix == ".py":
                yield ".".join(source.relative_to(staged).with_suffix("").parts).removesuffix(".__init__")


def _is_staged(package: str, staged: Path) -> bool:
    return (staged / package).exists() or (staged / f"{package}.py").exists()


def _data(staged: Path) -> Iterator[Path]:
    """Give the files that are no code and belong to no installed package's metadata."""
    for path in sorted(staged.rglob("*")):
        metadata = path.relative_to(staged).parts[0].endswith(".dist-info")
        if path.is_file() and path.suffix not in (".py", ".so", ".pyi", ".typed") and not metadata:
            yield path
