"""Package indexes of a test's own: wheels, tarballs for npm, and a server on loopback that gives them away."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str, bytes]


ANY = "py3-none-any"
"""The tag of a wheel that fits every Python and machine."""


def wheel(
    name: str, version: str, files: Mapping[str, str | bytes], requires: Sequence[str] = (), tag: str = ANY
) -> bytes:
    """Make a wheel with these files in it, wherever their paths lead to."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    parts: dict[str, str | bytes] = {
        **files,
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},{_hash(content)},{len(content)}\n" for path, content in parts.items())
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in {**parts, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return made.getvalue()


def _hash(content: str | bytes) -> str:
    digest = hashlib.sha256(content.encode() if isinstance(content, str) else content).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def sdist(name: str, version: str, program: str) -> bytes:
    """Make a source distribution that is built by running a program of its own, and needs nothing else for that."""
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {"backend.py": program, "pyproject.toml": build, "PKG-INFO": metadata}
    return tarball(files, f"{name}-{version}")


def tarball(files: Mapping[str, str], top: str = "package") -> bytes:
    """Make a tarball, as npm's are."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return made.getvalue()


def module(name: str, version: str, files: Mapping[str, str], **members: Any) -> bytes:
    """Make a package of npm's."""
    return tarball({"package.json": json.dumps({"name": name, "version": version, **members}), **files})


def integrity(content: bytes) -> str:
    """Give what a lock file says of a tarball."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


@dataclass
class Index:
    """A simple index for Python and a registry for Node.js in one.

    :ivar asked: the paths that were asked for.
    :ivar before: called with each path before it is answered, and may give another answer.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    before: Callable[[str], Answer | None] = lambda _path: None
    modules: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    @property
    def simple(self) -> str:
        """What pip and uv are told."""
        return f"{self.url}/simple"

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, str | bytes],
        requires: Sequence[str] = (),
        tag: str = ANY,
    ) -> None:
        """Offer a wheel."""
        self.files[f"{name}-{version}-{tag}.whl"] = wheel(name, version, files, requires, tag)

    def add_module(self, name: str, version: str, files: Mapping[str, str], **members: Any) -> bytes:
        """Offer a package of npm's."""
        content = self.files[f"{name}-{version}.tgz"] = module(name, version, files, **members)
        self.modules[name, version] = members
        return content

    def count(self, part: str) -> int:
        """Say how often something was asked for."""
        return sum(part in path for path in self.asked)

    def answer(self, path: str) -> Answer:
        """Answer a request."""
        self.asked.append(path)
        other = self.before(path)
        if other is not None:
            return other
        if path.startswith("/simple/"):
            return self._links(path.removeprefix("/simple/").strip("/"))
        if path.rpartition("/")[2] in self.files:
            return 200, "application/octet-stream", self.files[path.rpartition("/")[2]]
        return self._packument(path.strip("/"))

    def _links(self, project: str) -> Answer:
        names = [name for name in self.files if name.partition("-")[0].replace("_", "-") == project]
        links = "".join(
            f'<a href="/files/{name}#sha256={hashlib.sha256(self.files[name]).hexdigest()}">{name}</a>'
            for name in names
        )
        return (200 if names else 404), "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def _packument(self, name: str) -> Answer:
        versions = {}
        for (known, version), members in self.modules.items():
            if known == name:
                content = self.files[f"{name}-{version}.tgz"]
                dist = {"tarball": f"{self.url}/{name}/-/{name}-{version}.tgz", "integrity": integrity(content)}
                versions[version] = {"name": name, "version": version, "dist": dist, **members}
        if not versions:
            return 404, "application/json", b"{}"
        document = {"name": name, "versions": versions, "dist-tags": {"latest": max(versions)}}
        return 200, "application/json", json.dumps(document).encode()


@contextmanager
def serving(index: Index) -> Iterator[Index]:
    """Serve an index on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            status, kind, body = index.answer(self.path.partition("?")[0])
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
