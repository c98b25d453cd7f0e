"""The image that container tests run: Debian's Python with AWS's runtime client, laid out as AWS's base images are.

It is made from Debian packages, for no registry can be asked for one. That takes most of a minute, so the packed files
are kept in a folder of the checkout, once for all test runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = Path(__file__).parents[1] / ".base-image"
SUITE, PYTHON = "bookworm", "3.11"
"""A release of Debian and the Python that it has, whatever the machine runs."""

PACKAGES = ("python3-minimal", "libpython3-stdlib", "ca-certificates")
CLIENT = ("awslambdaric", "snapshot-restore-py", "simplejson")
UNUSED = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/info")

ENTRYPOINT = """#!/bin/sh
if [ $# -ne 1 ]; then
  echo "entrypoint requires the handler name to be the first argument" >&2
  exit 142
fi
export _HANDLER="$1"
exec /var/runtime/bootstrap
"""
BOOTSTRAP = """#!/bin/sh
exec /usr/bin/python3 -m awslambdaric "$_HANDLER"
"""

CHANGES = (
    'ENTRYPOINT ["/lambda-entrypoint.sh"]',
    "WORKDIR /var/task",
    "ENV LANG=C.UTF-8",
    "ENV TZ=:/etc/localtime",
    "ENV PATH=/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "ENV LD_LIBRARY_PATH=/var/task:/var/task/lib:/opt/lib",
    "ENV LAMBDA_TASK_ROOT=/var/task",
    "ENV LAMBDA_RUNTIME_DIR=/var/runtime",
)
"""What the image says of itself; for ``docker import``, and at the head of a Dockerfile as well."""


def obtainable() -> bool:
    """Whether the image is kept, or can be made: debootstrap is there and may make devices."""
    return _kept().exists() or (shutil.which("debootstrap") is not None and os.geteuid() == 0)


def packed_files() -> Path:
    """The image's files as a tar, made where it is not kept yet; other runs wait for the one that makes it."""
    kept = _kept()
    KEPT.mkdir(exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            with tempfile.TemporaryDirectory(prefix="sfull-image-") as folder:
                _make(Path(folder), kept)
    return kept


def _kept() -> Path:
    """Named after all that goes into it, so that no change of that finds what was made before."""
    recipe = repr((SUITE, PACKAGES, _client(), UNUSED, ENTRYPOINT, BOOTSTRAP, platform.machine()))
    return KEPT / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar"


def _client() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in CLIENT]


def _make(folder: Path, kept: Path) -> None:
    root = folder / "root"
    include = f"--include={','.join(PACKAGES)}"
    _run("debootstrap", "--variant=minbase", include, SUITE, root)
    target = root / f"usr/local/lib/python{PYTHON}/dist-packages"
    platforms = f"manylinux2014_{platform.machine()}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    wheels = ["--only-binary=:all:", f"--python-version={PYTHON}", f"--platform={platforms}"]
    _run(*pip, *wheels, f"--target={target}", *_client())
    for unused in UNUSED:
        shutil.rmtree(root / unused, ignore_errors=True)
    for path in ("var/task", "var/runtime", "opt"):
        (root / path).mkdir(parents=True, exist_ok=True)
    for path, text in (("lambda-entrypoint.sh", ENTRYPOINT), ("var/runtime/bootstrap", BOOTSTRAP)):
        (root / path).write_text(text)
        (root / path).chmod(0o755)
    # Removed by name when it is whole: what an ended run has left half would be taken for it otherwise.
    half = kept.with_suffix(f".{os.getpid()}")
    try:
        _run("tar", "--create", f"--file={half}", f"--directory={root}", "--exclude=./dev/*", ".")
        half.rename(kept)
    finally:
        half.unlink(missing_ok=True)


def _run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{said}")
