"""What is to be built, and what was: plain data."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be built.

    :param target: TARGET, as ``serverfull serve`` takes it.
    :param function: the function's name; empty takes the only one.
    :param mock: answers come from the function's types, and its handler never runs.
    :param requirements: requirements files of pip.
    :param platforms: tags of the wheels' platforms; none takes those that fit the format.
    :param python_version: ``X.Y`` of the wheels; None: this interpreter's.
    :param include: further files and folders.
    """

    target: str
    function: str = ""
    mock: bool = False
    requirements: tuple[Path, ...] = ()
    platforms: tuple[str, ...] = ()
    python_version: str | None = None
    include: tuple[Path, ...] = ()

    @property
    def for_another_python(self) -> bool:
        """Whether the wheels may be others than those for this interpreter."""
        return bool(self.platforms or self.python_version)


@dataclass(frozen=True, slots=True)
class Built:
    """An artifact.

    :param notes: what to do with it, in lines for a reader.
    """

    path: Path
    notes: tuple[str, ...]


def this_python() -> str:
    """Give the version of this interpreter as ``X.Y``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def lambda_platforms(python_version: str) -> tuple[str, ...]:
    """Give the platforms of wheels that run on Lambda's runtime of a Python version, for this machine's processor.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html (Amazon Linux 2023 has glibc 2.34 and Amazon
    Linux 2 has 2.26)
    """
    newest = 34 if int(python_version.partition(".")[2]) >= 12 else 26
    levels = [level for level in (34, 31, 28, 26, 24, 17) if level <= newest]
    machine = platform.machine()
    return (*(f"manylinux_2_{level}_{machine}" for level in levels), f"manylinux2014_{machine}")
