"""Artifacts, built once each by the real command, and an interpreter that has nothing installed."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from serverfull.testing.process import plain_environment

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SOURCES = ("shop.py", "prices.py", "note.txt")

Build = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    """What a build said, and the folder that it ran in."""

    folder: Path
    stdout: str
    stderr: str

    @property
    def path(self) -> Path:
        return self.folder / self.stdout.strip()


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Run ``serverfull build`` in a clean folder with a copy of the sources."""

    def build(*arguments: str, package: Path = ROOT, timeout: float = 240) -> Done:
        folder = tmp_path_factory.mktemp("build")
        for name in SOURCES:
            shutil.copyfile(HERE / name, folder / name)
        command = [sys.executable, "-m", "serverfull", "build", *arguments]
        env = {**plain_environment(), "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return Done(folder, done.stdout, done.stderr)

    return build


@pytest.fixture(scope="session")
def order_zip(build: Build) -> Path:
    return build("shop.py", "--function", "order", "--format", "zip", "--include", "note.txt").path


@pytest.fixture(scope="session")
def order_pyz(build: Build) -> Path:
    return build("shop:functions", "--function", "order", "--format", "pyz", "--include", "note.txt").path


@pytest.fixture(scope="session")
def order_bootstrap(build: Build) -> Path:
    return build("shop.py", "--function", "order", "--format", "bootstrap", "--include", "note.txt").path


@pytest.fixture(scope="session")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter of the same version that has no package installed, not even pip."""
    folder = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def managed_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in for ``/var/runtime`` of a managed runtime: AWS's client and what that needs."""
    folder = tmp_path_factory.mktemp("runtime")
    for package in ("awslambdaric", "snapshot-restore-py", "simplejson"):
        for file in importlib.metadata.files(package) or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), folder / file)
    return folder


@pytest.fixture(scope="session")
def task_folder(order_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``/var/task`` of a managed runtime: the unpacked zip."""
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(order_zip) as packed:
        packed.extractall(folder)
    return folder
