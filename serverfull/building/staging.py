"""Puts everything that a function needs into one folder: serverfull's own part, its files, and what pip installs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import serverfull
from serverfull.building.inspection import Inspection
from serverfull.building.plan import Plan, this_python
from serverfull.errors import BuildFailed
from serverfull.lambda_mode.names import ARTIFACT_MODULE

PACKAGE = Path(serverfull.__file__).parent

ROOMS = frozenset({"config", "contracts", "domain", "fetchers", "lambda_mode", "observability", "runtimes"})
"""The rooms of serverfull that lambda mode is made of; further ones go in where the function's module imports them."""

OWN_REQUIREMENTS = MappingProxyType(
    {
        "aiohttp": "aiohttp>=3.14.4",
        "awslambdaric": "awslambdaric>=3.0",
        "botocore": "botocore>=1.43.11",
        "click": "click>=8.1",
        "prometheus_client": "prometheus-client>=0.20",
        "pydantic": "pydantic>=2.12",
        "pydantic_settings": "pydantic-settings>=2.4",
        "simplejson": "simplejson>=3.19",
        "structlog": "structlog>=24.1",
    }
)
"""What serverfull may need at run time, by the name that it is imported under. Of these only what is loaded goes in."""

_NEVER = ("botocore",)  # no part of lambda mode reads it; a handler that needs it has it among its requirements
_LITTER = ("__pycache__", "*.pyc", ".*", "*.egg-info")
_INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")


def stage(plan: Plan, found: Inspection, folder: Path, platforms: Iterable[str], *, client: bool) -> None:
    """Fill a folder.

    :param folder: empty; becomes what is at the root of ``sys.path`` on Lambda.
    :param platforms: of the wheels; none means those of this interpreter, or built here.
    :param client: AWS's runtime client goes in: only Lambda's own runtimes have it.
    :raises BuildFailed: pip failed, or two things have the same name.
    """
    requirements = _own_requirements(found.modules, client=client)
    _install(requirements, plan, folder, tuple(platforms))
    projects = list(_projects(folder))
    _clean(folder)
    _copy_serverfull(found.modules, folder)
    base = Path(found.folder)
    loaded = [Path(file) for file in found.files if not _is_installed(Path(file), folder, projects)]
    further = [path for path in plan.include if not any(path.absolute().is_relative_to(file) for file in loaded)]
    for source in [*loaded, *further]:
        copy_in(source, folder / _inside(source, base))
    text = f"TARGET = {found.target!r}\nFUNCTION = {found.function!r}\nMOCK = {plan.mock!r}\n"
    (folder / f"{ARTIFACT_MODULE}.py").write_text(text, encoding="utf-8")


def not_inside(found: Inspection, folder: Path, *, provided: Collection[str] = ()) -> dict[str, str]:
    """Give the packages and modules that loading the function imports and that a filled folder lacks, and their files.

    :param provided: names that are there where the artifact runs.
    """
    return {name: file for name, file in found.imported.items() if name not in provided and not _holds(folder, name)}


def _holds(folder: Path, name: str) -> bool:
    *outer, last = name.split(".")
    inside = folder.joinpath(*outer)
    return (inside / last).is_dir() or any(path.name.partition(".")[0] == last for path in inside.glob("*.*"))


def own_packages(modules: Iterable[str], *, client: bool) -> set[str]:
    """Give the packages of serverfull's own requirements that a function needs."""
    loaded = {name.partition(".")[0] for name in modules}
    needed = {name for name in OWN_REQUIREMENTS if name in loaded and name not in _NEVER}
    return needed | ({"awslambdaric"} if client else set()) | {"simplejson"}


def _own_requirements(modules: Iterable[str], *, client: bool) -> list[str]:
    needed = own_packages(modules, client=client)
    return sorted(OWN_REQUIREMENTS[name] for name in needed if client or name != "awslambdaric")


def _install(requirements: list[str], plan: Plan, folder: Path, platforms: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-input", "--target", str(folder)]
    if platforms or plan.python_version:
        command += [
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={plan.python_version or this_python()}",
        ]
        command += [f"--platform={platform}" for platform in platforms]
    for file in plan.requirements:
        command += ["--requirement", str(file)]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode == 0:
        return
    said = done.stderr.strip() or done.stdout.strip()
    if "No module named pip" in said:
        said = f"this interpreter ({sys.executable}) has no pip: python -m ensurepip brings it"
    raise BuildFailed(f"pip cannot install what the function needs: {said}")


def _projects(folder: Path) -> Iterator[Path]:
    """Give the folders of projects that pip installed from where they are developed, as the requirement ``.`` says."""
    for document in folder.glob("*.dist-info/direct_url.json"):
        url = json.loads(document.read_text(encoding="utf-8")).get("url", "")
        if url.startswith("file://"):
            yield Path(unquote(urlsplit(url).path)).resolve()


def _is_installed(file: Path, folder: Path, projects: Iterable[Path]) -> bool:
    """Whether a file of the function's has come with its own project already."""
    return (folder / file.name).exists() and any(file.resolve().is_relative_to(project) for project in projects)


def _clean(folder: Path) -> None:
    """Take away what says only how and where it was installed, so that the same input gives the same artifact."""
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    for information in folder.glob("*.dist-info"):
        for name in _INSTALLERS:
            (information / name).unlink(missing_ok=True)


def _copy_serverfull(modules: Iterable[str], folder: Path) -> None:
    loaded = {name.split(".")[1] for name in modules if name.startswith("serverfull.")} - {"building", "cli"}
    target = folder / PACKAGE.name
    target.mkdir()
    for part in sorted(PACKAGE.iterdir()):
        if part.suffix == ".py" and (part.stem in {"__init__", "errors", "interfaces"} or part.stem in loaded):
            shutil.copyfile(part, target / part.name)
        elif part.is_dir() and part.name in ROOMS | loaded:
            shutil.copytree(part, target / part.name, ignore=shutil.ignore_patterns(*_LITTER))


def _inside(source: Path, base: Path) -> Path:
    """Say where a file goes: where it is below the folder of the function's module, else to the root."""
    absolute = source.absolute()
    return absolute.relative_to(base) if absolute.is_relative_to(base) and absolute != base else Path(absolute.name)


def copy_in(source: Path, target: Path) -> None:
    """Copy a file or a folder, but never over a package or a file that is there already.

    :raises BuildFailed: it would hide what is there.
    """
    joins = source.is_dir() and target.is_dir() and not (target / "__init__.py").exists()
    twin = target.with_suffix("") / "__init__.py" if target.suffix == ".py" else target.with_name(f"{target.name}.py")
    if (target.exists() and not joins) or twin.exists():
        raise BuildFailed(f"{source} cannot go in as {target.name}: something that is needed has that name already")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*_LITTER), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)
