"""What a package asks to have installed: its ``requirements.txt``, ``pyproject.toml`` or ``package.json``.

Whoever uploads a package writes these files, and what reads them runs outside every sandbox. So they are read here
first, and nothing is passed on but names, versions, markers, hashes, and wheels or tarballs inside the package: no
paths of the host, no addresses, no other index. What is refused is refused by name.

Plain functions that read a few small files: call them on a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LARGEST = 16_777_216
"""Bytes of one of these files: the largest lock files are a few megabytes."""


class Refused(Exception):
    """Something in a package's files is not installed here.

    :param reason: what it is, and what to do, as a sentence for the function's owner.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is to be installed.

    :param kind: by what.
    :param source: the file of the package that says so.
    :param files: what the installer finds in its working directory, by relative path.
    :param copied: files of the package that it finds there too.
    :param locked: whether exact versions of everything are said: ``npm ci``.
    :param digest: of all of that.
    """

    kind: Literal["python", "node"]
    source: str
    files: Mapping[str, bytes]
    copied: Sequence[str] = ()
    locked: bool = False
    digest: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a package.

    :param manifest: None: there is nothing to install.
    :param remarks: what its owner may expect to be read and is not.
    """

    manifest: Manifest | None = None
    remarks: Sequence[str] = field(default=())


def find_manifest(root: Path, runtime: str) -> Findings:
    """Say what a package asks to have installed.

    :param root: the folder of the unpacked package.
    :param runtime: such as ``python3.12`` or ``nodejs22.x``; those of others bring all that they need.
    :raises Refused: it asks for what is not installed here.
    """
    if runtime.startswith("python"):
        from serverfull.dependencies.python import find_python

        return find_python(root)
    if runtime.startswith("nodejs"):
        from serverfull.dependencies.node import find_node

        return find_node(root)
    return Findings()


def read(root: Path, name: str) -> bytes | None:
    """Give a file of a package; None where there is none.

    :raises Refused: it is too large.
    """
    file = root / name
    if not file.is_file():
        return None
    if file.stat().st_size > LARGEST:
        raise Refused(f"{name} has more than {LARGEST} bytes.")
    return file.read_bytes()


def inside(root: Path, path: str) -> str:
    """Give a path inside a package in one spelling.

    :raises Refused: it leads elsewhere, or there is no file.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\\" in path or not (root / "/".join(parts)).is_file():
        raise Refused(f"{path!r} is no file of the package.")
    return "/".join(parts)


def digest_of(root: Path, files: Mapping[str, bytes], copied: Sequence[str]) -> str:
    """Give a digest of what an installer is given."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    for name in sorted(copied):
        with (root / name).open("rb") as opened:
            digest.update(f"{name}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()
