"""What a Python package asks to have installed: ``requirements.txt``, or else ``project.dependencies``.

https://pip.pypa.io/en/stable/reference/requirements-file-format/ and https://peps.python.org/pep-0508/ say what a line
may be; of what an option may say, only that counts which chooses among versions.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serverfull.dependencies.manifests import Findings, Manifest, Refused, digest_of, inside, read

REQUIREMENTS = "requirements.txt"
CONSTRAINTS = "constraints.txt"
_PROJECT = "pyproject.toml"

_DEEPEST = 10
"""Files that include each other."""

_LONGEST = 1_000
"""Characters of a requirement, without its hashes."""

_REQUIREMENT = re.compile(
    r"""[A-Za-z0-9][\w.-]*\s*  (\[[\w\s.,-]*\]\s*)?  [\w.*+!=<>~,\s()-]*  (;[\w\s.'"<>=!~(),+*-]*)?""",
    re.VERBOSE | re.ASCII,
)
_HASH = re.compile(r"\s--hash[= ](sha256|sha384|sha512):[0-9a-f]+(?=\s|\Z)")
_COMMENT = re.compile(r"(\A|\s+)#.*")
_WHEEL = re.compile(r"[\w./+-]+\.whl", re.ASCII)
_PLAIN = ("--pre", "--prefer-binary", "--require-hashes")
_INCLUDED = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
_INDEXES = (
    "-i",
    "--index-url",
    "--pypi-url",
    "--extra-index-url",
    "--no-index",
    "-f",
    "--find-links",
    "--trusted-host",
)

_VENDORED = re.compile(r".+\.(dist|egg)-info", re.IGNORECASE)
_UNZIPPED_LATER = ".requirements.zip"


def find_python(root: Path) -> Findings:
    """Say what a package asks for.

    :raises Refused: it asks for what is not installed here.
    """
    if is_vendored(root):
        return Findings()
    if (text := read(root, REQUIREMENTS)) is not None:
        return Findings(_manifest(root, REQUIREMENTS, _Reader(root).read(REQUIREMENTS, text)))
    if (text := read(root, _PROJECT)) is not None:
        return _of_project(root, text)
    return Findings()


def is_vendored(root: Path) -> bool:
    """Tell whether a package brings its dependencies: every installer leaves a ``.dist-info`` for each.

    Also where they lie in an archive that the function's own code unpacks.
    """
    return (root / _UNZIPPED_LATER).exists() or any(_VENDORED.fullmatch(path.name) for path in root.iterdir())


def _of_project(root: Path, text: bytes) -> Findings:
    try:
        document = tomllib.loads(text.decode())
    except ValueError as wrong:
        raise Refused(f"{_PROJECT} cannot be read: {wrong}.") from None
    project = document.get("project")
    if not isinstance(project, dict):
        poetry = document.get("tool", {}).get("poetry", {}) if isinstance(document.get("tool"), dict) else {}
        if isinstance(poetry, dict) and "dependencies" in poetry:
            return Findings(remarks=[f"{_PROJECT} has dependencies in [tool.poetry] alone, which is not read"])
        return Findings()
    if "dependencies" in project.get("dynamic", ()):
        raise Refused(
            f"{_PROJECT} has dynamic dependencies, which only a build of the project could tell, and nothing is built "
            f"here. Write them to {REQUIREMENTS}."
        )
    reader = _Reader(root)
    for line in _texts(project.get("dependencies", [])):
        reader.take(_PROJECT, line)
    return Findings(_manifest(root, _PROJECT, reader))


def _texts(listed: Any) -> list[str]:
    if not isinstance(listed, list) or not all(isinstance(line, str) for line in listed):
        raise Refused(f"project.dependencies of {_PROJECT} is no list of texts.")
    return listed


def _manifest(root: Path, source: str, reader: _Reader) -> Manifest | None:
    if not reader.lines:
        return None
    files = {REQUIREMENTS: "".join(f"{line}\n" for line in (*reader.options, *reader.lines)).encode()}
    if reader.constraints:
        files[CONSTRAINTS] = "".join(f"{line}\n" for line in reader.constraints).encode()
    hashed = {**files, **reader.read_files}  # also their comments: who changes one has everything installed anew
    copied = sorted(set(reader.wheels))
    return Manifest(kind="python", source=source, files=files, copied=copied, digest=digest_of(root, hashed, copied))


class _Reader:
    """Reads requirements, and the files that they include.

    :ivar lines: the requirements.
    :ivar read_files: the files as they are, by name; ``:`` is in none of an installer's.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.lines: list[str] = []
        self.constraints: list[str] = []
        self.options: list[str] = []
        self.wheels: list[str] = []
        self.read_files: dict[str, bytes] = {}

    def read(self, name: str, text: bytes, into: list[str] | None = None, depth: int = 0) -> _Reader:
        """Read a file."""
        if depth > _DEEPEST:
            raise Refused(f"{name} is included by itself, or by too many others.")
        self.read_files[f"read:{name}"] = text
        try:
            decoded = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Refused(f"{name} is not UTF-8.") from None
        for line in _logical_lines(decoded):
            if line.startswith("-"):
                self._option(name, line, self.lines if into is None else into, depth)
            else:
                self.take(name, line, into)
        return self

    def take(self, name: str, line: str, into: list[str] | None = None) -> None:
        """Take a requirement.

        :param name: of the file that it is in.
        """
        hashes = [match[0].strip() for match in _HASH.finditer(line)]
        plain = _HASH.sub("", line).strip()
        if _WHEEL.fullmatch(plain) and "://" not in plain:
            plain = f"./{self._wheel(name, plain)}"
        elif len(plain) > _LONGEST or not _REQUIREMENT.fullmatch(plain):
            raise Refused(
                f"{name}: {plain[:200]!r} is not installed here. What is: names from an index, with versions, extras, "
                "markers and hashes, and wheels inside the package; no addresses, no folders, nothing that has to be "
                "built."
            )
        (self.lines if into is None else into).append(" ".join([plain, *hashes]))

    def _wheel(self, name: str, path: str) -> str:
        """Paths are relative to the package's root, as for pip when it is called there."""
        try:
            found = inside(self._root, path)
        except Refused as refused:
            raise Refused(f"{name}: {refused.reason}") from None
        self.wheels.append(found)
        return found

    def _option(self, name: str, line: str, into: list[str], depth: int) -> None:
        option, _, value = line.partition("=") if line.startswith("--") and "=" in line else line.partition(" ")
        if not line.startswith("--"):
            option, value = line[:2], line[2:]
        value = value.strip()
        if option in _PLAIN and not value:
            self.options.append(option)
        elif option in _INCLUDED:
            self._include(name, value, self.constraints if _INCLUDED[option] == "-c" else into, depth)
        elif option in _INDEXES:
            raise Refused(f"{name}: {option} is not taken from a package. Which index is asked, the operator says.")
        else:
            raise Refused(f"{name}: {option} is not supported here.")

    def _include(self, name: str, value: str, into: list[str], depth: int) -> None:
        try:
            [path] = shlex.split(value)
            folder = Path(name).parent
            found = inside(self._root, path if folder == Path() else f"{folder}/{path}")
        except (ValueError, Refused):
            raise Refused(f"{name}: {value[:200]!r} is no file of the package.") from None
        text = read(self._root, found)
        assert text is not None
        self.read(found, text, into, depth + 1)


def _logical_lines(text: str) -> Iterator[str]:
    """Put lines together that a backslash continues, and leave out comments and empty ones."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        found = _COMMENT.sub("", line).strip()
        if found:
            yield found
