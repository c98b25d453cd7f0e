"""What dependencies are installed for: the interpreter that runs the function, here or in a container."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import DependencySettings, DockerSettings, ExecutionSettings, LoggingSettings, Settings
from serverfull.dependencies.roots import Dependencies
from serverfull.dependencies.targets import Targets
from serverfull.domain.deployed import FunctionVersion
from serverfull.errors import DependenciesNotInstalled
from serverfull.observability.logger import HostLogger
from serverfull.testing.deployments import PYTHON
from serverfull.testing.indexes import Index, serving

OWN = Path(sys.executable)
IN_DOCKER = {"serverfull:execution": "docker"}
MACHINE = platform.machine()


def targets(mode: Any = "auto", images: tuple[str, ...] = (), other_python: Any = "use") -> Targets:
    execution = ExecutionSettings(mode=mode, other_python=other_python)
    return Targets(Settings(execution=execution, docker=DockerSettings(images=images)))


async def found(runtime: str, tags: Mapping[str, str] | None = None, **settings: Any) -> tuple[str, Path | None] | None:
    interpreter = await targets(**settings).find(runtime, tags or {})
    return None if interpreter is None else (interpreter.series, interpreter.path)


async def test_it_goes_by_the_settings_and_tags_that_runtimes_go_by() -> None:
    own = ".".join(map(str, sys.version_info[:2]))
    assert await found(PYTHON) == await found(PYTHON, mode="process") == (own, OWN)
    assert await found("python3.99", other_python="error") is None
    assert await found("python3.99") == (own, OWN)
    assert await found("python3.99", {"serverfull:execution": "inprocess"}) == (own, OWN)
    assert await found("nodejs22.x", mode="inprocess") is None
    assert await found("python3.12", IN_DOCKER) == await found("python3.12", mode="docker") == ("3.12", None)
    assert await found("nodejs22.x", IN_DOCKER) == ("22", None)
    images = ("python3.99=image", f"{PYTHON}=image")
    assert await found("python3.99", images=images) == ("3.99", None)
    assert await found("python3.99", images=images, mode="process") == (own, OWN)
    assert await found(PYTHON, images=images) == (own, OWN)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    monkeypatch.setenv("PATH", f"{OWN.parent}{os.pathsep}{os.environ['PATH']}")
    with serving(Index()) as index:
        yield index


async def root(tmp_path: Path, index: Index, runtime: str, files: Mapping[str, str], **settings: Any) -> Path:
    code = tmp_path / "code"
    code.mkdir(exist_ok=True)
    for name, content in files.items():
        (code / name).write_text(content)
    chosen = DependencySettings(install="on", python_index=index.simple, node_registry=index.url, **settings)
    logger = HostLogger(LoggingSettings(output="NULL"))
    dependencies = Dependencies(tmp_path / "dependencies", chosen, targets().find, {"HOME": str(tmp_path)}, logger)
    version = FunctionVersion(
        function="f", role="", last_modified="", revision_id="", code_sha256="0" * 64, runtime=runtime
    )
    try:
        return await dependencies.root(code, version, IN_DOCKER, True)
    finally:
        await dependencies.aclose()


Require = Callable[[str, object, str], None]


@pytest.mark.skipif(sys.platform != "linux", reason="containers are of the machine's kind")
async def test_containers_get_wheels_for_their_python_and_not_for_the_hosts(
    index: Index, tmp_path: Path, require: Require
) -> None:
    require("uv", shutil.which("uv"), "pip install uv")
    for tag in ("cp39-cp39-manylinux2014", "cp312-cp312-manylinux_2_28", "cp312-cp312-manylinux_2_38"):
        index.add("fast", "1.0", {"fast.py": f"TAG = '{tag}'\n"}, tag=f"{tag}_{MACHINE}")
    for tag in (f"cp39-cp39-manylinux_2_28_{MACHINE}", f"cp{sys.version_info[0]}{sys.version_info[1]}-none-any"):
        index.add("fast", "2.0", {"fast.py": "TAG = 'too new, or of the host'\n"}, tag=tag)
    index.add("marked", "1.0", {"marked.py": ""})
    files = {"requirements.txt": "fast<2\nmarked; python_version < '3.10'\n"}
    old = await root(tmp_path, index, "python3.9", files)
    new = await root(tmp_path, index, "python3.12", files)
    assert (old / "fast.py").read_text() == "TAG = 'cp39-cp39-manylinux2014'\n"
    assert (new / "fast.py").read_text() == "TAG = 'cp312-cp312-manylinux_2_28'\n"
    assert ((old / "marked.py").exists(), (new / "marked.py").exists()) == (True, False)
    with pytest.raises(DependenciesNotInstalled, match="uv failed"):
        await root(tmp_path, index, "python3.9", {"requirements.txt": "fast>=2\n"})


async def test_pip_is_refused_for_containers_because_it_would_read_markers_for_its_own_python(
    index: Index, tmp_path: Path
) -> None:
    with pytest.raises(DependenciesNotInstalled, match="pip installs for no Python but its own"):
        await root(tmp_path, index, "python3.12", {"requirements.txt": "fast\n"}, python_installer="pip")


async def test_containers_get_what_npm_has_for_linux(index: Index, tmp_path: Path, require: Require) -> None:
    require("npm", shutil.which("npm"), "install Node.js with npm")
    index.add_module("for-linux", "1.0.0", {"index.js": ""}, os=["linux"], cpu=["x64", "arm64"], libc=["glibc"])
    index.add_module("for-musl", "1.0.0", {"index.js": ""}, os=["linux"], libc=["musl"])
    package = '{"optionalDependencies": {"for-linux": "1", "for-musl": "1"}}'
    installed = await root(tmp_path, index, "nodejs22.x", {"package.json": package})
    assert sorted(path.name for path in (installed / "node_modules").glob("[!.]*")) == ["for-linux"]
