"""The shape of the project itself: what its tools cannot see."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "serverfull"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

READS_ENVIRONMENT = {
    "config/installers.py": "what package installers see of it",
    "config/variables.py": "what paths of folders that run in place may name",
    "config/credentials.py": "the credentials that functions are to have too",
    "config/loading.py": "the settings",
    "config/native.py": "the settings of a native Lambda",
    "building/freezing.py": "starts PyInstaller with the machine's environment and its own search path",
    "lambda_mode/frozen.py": "takes back what PyInstaller's loader has set for itself",
    "runtimes/child/births.py": "gives a function's process its variables",
    "runtimes/child/client.py": "runs in a function's process, which has its own",
    "runtimes/child/context.py": "the same",
    "runtimes/child/snapshots.py": "runs in a function's process, which has its own",
    "runtimes/environ.py": "shows each function its own variables over the host's",
    "testing/deeds/bootstrap.py": "runs in a function's process, which has its own",
    "testing/deeds/deeds.py": "is the code of functions, which show their variables",
    "testing/process.py": "starts hosts with the environment of the test",
    "testing/escapes/probes/__main__.py": "stands for a function's process",
    "testing/escapes/probes/files.py": "code of users, as far as the host is concerned",
    "testing/escapes/probes/network.py": "likewise",
}
"""The modules that may touch os.environ, and why."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_cmd_is_no_package_because_it_would_hide_the_standard_librarys_cmd() -> None:
    assert not list((ROOT / "cmd").rglob("__init__.py"))
    import cmd

    assert hasattr(cmd, "Cmd")


def test_tests_are_no_packages_so_that_two_may_have_the_same_name() -> None:
    assert not [path for folder in ("tests", "integration") for path in (ROOT / folder).rglob("__init__.py")]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_settings_read_the_environment(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) in READS_ENVIRONMENT:
        return
    tree = ast.parse(path.read_text())
    reads = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_environment(node)]
    imports = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(alias.name in ("environ", "getenv") for alias in node.names)
    ]
    assert not reads + imports


def _is_environment(node: ast.Attribute) -> bool:
    return node.attr in ("environ", "getenv") and isinstance(node.value, ast.Name) and node.value.id == "os"


IMPORTED_LATE = (
    *("api/contracts.py", "contracts/", "control_plane", "dependencies/", "destinations/", "fetchers/answers.py"),
    *("management/", "storage/"),
)
NO_HANDLER_RUNS_WITH = ("building/", "cli/", "config/", "dependencies/warden.py", "runtimes/child/", "testing/")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_handler_that_replaces_functions_of_the_json_module_reaches_none_of_the_hosts(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    if name.startswith(NO_HANDLER_RUNS_WITH):
        return
    tree = ast.walk(ast.parse(path.read_text()))
    for node in tree:
        if isinstance(node, ast.Attribute) and node.attr in ("dumps", "loads"):
            assert not (isinstance(node.value, ast.Name) and node.value.id == "json"), f"line {node.lineno}"
        if isinstance(node, ast.ImportFrom) and node.module == "json":
            assert not name.startswith(IMPORTED_LATE), "import from serverfull.domain.json_functions instead"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_every_development_dependency_is_pinned_to_an_exact_version_and_to_no_address() -> None:
    pinned = _pins("requirements-dev.txt") | _pins("requirements-bench.txt") | _pins("requirements-lint.txt")
    groups = PYPROJECT["dependency-groups"]
    extras = PYPROJECT["project"]["optional-dependencies"]
    asked = [*PYPROJECT["project"]["dependencies"], *extras["fast"], *groups["dev"], *groups["bench"], *groups["lint"]]
    assert {_name(requirement) for requirement in asked} <= pinned


def test_what_users_install_has_lower_bounds_and_no_caps() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    for requirement in [*PYPROJECT["project"]["dependencies"], *(each for extra in extras.values() for each in extra)]:
        specifier = requirement.split(";")[0]
        assert ">=" in specifier, requirement
        assert not re.search(r"<|==|~=|!=", specifier), requirement


def test_the_lock_of_the_javascript_client_names_no_registry() -> None:
    assert "resolved" not in (ROOT / "integration/sdk/js/package-lock.json").read_text()


def _pins(file: str) -> set[str]:
    pins = set()
    for line in (ROOT / file).read_text().splitlines():
        if not line or line.startswith(("#", "-r ")):
            continue
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+(; .*)?", line), line
        pins.add(_name(line))
    return pins


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()
