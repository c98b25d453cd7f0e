"""``serverfull build``: what goes in, and what is refused. What it builds is run in integration/lambda_mode."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serverfull.building.archive import write_zip
from serverfull.building.inspection import Inspection, inspect
from serverfull.building.plan import Plan, lambda_platforms
from serverfull.building.staging import OWN_REQUIREMENTS, _copy_serverfull, copy_in, packages_left_out
from serverfull.errors import BuildFailed, NotFoundError, TargetImportFailed

ROOT = Path(__file__).parents[2]
Run = Callable[..., Any]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    (tmp_path / "shop" / "prices.py").write_text("PRICE = 1\n")
    (tmp_path / "unused.py").write_text("")
    (tmp_path / "app.py").write_text(
        "import shop.prices\nprint('loading')\ndef hello():\n    return 'Hello'\n"
        "def typed(e: list[dict[str, int]]) -> int:\n    return 1\nfunctions = {'hello': hello, 'typed': typed}\n"
    )
    return tmp_path


def found(**plan: Any) -> Inspection:
    return inspect(Plan(target="app.py", **plan))


def test_the_files_that_a_function_is_loaded_from_are_found_and_others_are_not(
    app: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(app)
    seen = found(function="hello")
    assert (seen.target, seen.function, seen.folder) == ("app:functions", "hello", str(app))
    assert seen.files == (str(app / "app.py"), str(app / "shop"))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "loading" in captured.err


def test_validation_goes_in_only_where_the_function_uses_it(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    plain, typed = (packages_left_out(found(function=name).modules, client=True) for name in ("hello", "typed"))
    assert set(plain) - set(typed) == {"pydantic"}
    assert {"aiohttp", "botocore", "boto3", "click"} <= set(typed)
    assert not {"simplejson", "awslambdaric"} & set(plain)


def test_a_module_that_imports_the_server_gets_it(app: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(app)
    (app / "app.py").write_text("from serverfull import serve\nfunctions = {'hello': print}\n")
    modules = found().modules
    assert "aiohttp" not in packages_left_out(modules, client=True)
    staged = tmp_path / "staged"
    staged.mkdir()
    _copy_serverfull(modules, staged)
    assert (staged / "serverfull" / "serving.py").exists()
    assert not (staged / "serverfull" / "building").exists()


def test_a_target_of_a_package_brings_the_whole_package(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    (app / "shop" / "handlers.py").write_text("def hello():\n    return 1\n")
    seen = inspect(Plan(target="shop.handlers:hello"))
    assert (seen.target, seen.function, seen.files) == ("shop.handlers:hello", "hello", (str(app / "shop"),))


def test_what_loading_raises_in_the_other_process_is_raised_here(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app)
    with pytest.raises(NotFoundError, match="there is no function 'nope': there are hello, typed"):
        found(function="nope")
    (app / "app.py").write_text("1 / 0\n")
    with pytest.raises(TargetImportFailed, match="ZeroDivisionError") as raised:
        found()
    assert 'app.py", line 1' in raised.value.user_traceback
    (app / "app.py").write_text("import os\nos._exit(5)\n")
    with pytest.raises(BuildFailed, match="ended the process with status 5"):
        found()


def test_the_same_files_make_the_same_archive_whatever_their_times_and_modes(tmp_path: Path) -> None:
    archives = []
    for number, mode in enumerate((0o600, 0o755)):
        folder = tmp_path / str(number)
        (folder / "inner").mkdir(parents=True)
        for name in ("b", "a", "inner/c")[:: 1 if number else -1]:
            (folder / name).write_text(name)
            (folder / name).chmod(mode)
        archive = tmp_path / f"{number}.zip"
        write_zip(folder, archive, programs=["a"])
        archives.append(archive.read_bytes())
    assert archives[0] == archives[1]
    with zipfile.ZipFile(tmp_path / "0.zip") as packed:
        assert packed.namelist() == ["a", "b", "inner/c"]
        assert [entry.external_attr >> 16 for entry in packed.infolist()] == [0o100755, 0o100644, 0o100644]


def test_wheels_are_no_newer_than_the_c_library_of_the_runtime() -> None:
    assert "manylinux_2_34" in lambda_platforms("3.13")[0]
    assert "manylinux_2_26" in lambda_platforms("3.11")[0]
    assert lambda_platforms("3.11")[-1].startswith("manylinux2014_")


def test_what_is_asked_of_pip_is_what_the_project_asks_for() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in OWN_REQUIREMENTS.values():
        assert f'"{requirement}"' in text or f'"{requirement};' in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--format", "zip", "--function", "nope"), 2, "there are hello, typed"),
        (("--format", "zip"), 2, "name the function to run: there are hello, typed"),
        (("--format", "zip", "--python-version", "3.9"), 2, "--python-version takes 3.11 and later, not 3.9"),
        (("--format", "bootstrap", "--python-platform", "any"), 2, "a bootstrap holds the Python that builds it"),
        (("--format", "rpm"), 2, "'rpm' is not one of"),
        (("--format", "zip", "--include", "absent"), 2, "'absent' does not exist"),
        (("--format", "zip", "--function", "hello", "--requirements", "bad.txt"), 1, "pip cannot install"),
    ],
)
def test_what_cannot_be_built_is_said_and_nothing_is_written(
    run: Run, app: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (app / "bad.txt").write_text("./not-there\n")
    done = run("build", "app.py", *arguments)
    assert done.returncode == code
    assert message in re.sub(r"\s+", " ", done.stderr)
    assert not list(app.glob("*.zip"))


def test_without_pyinstaller_the_extra_is_named(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "PyInstaller" else real(name))
    done = run("build", "app.py", "--function", "hello", "--format", "bootstrap")
    assert done.returncode == 3
    assert "pip install 'serverfull[build]'" in done.stderr


def test_what_would_hide_an_installed_package_does_not_go_in(app: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    copy_in(app / "shop", staged / "shop")
    assert (staged / "shop" / "prices.py").exists()
    for source in (app / "shop", app / "app.py"):
        with pytest.raises(BuildFailed, match="cannot go in as shop"):
            copy_in(source, staged / "shop")
    (app / "data").mkdir()
    for name in ("a.txt", "b.txt"):  # a folder that is no package takes more
        (app / "data" / name).write_text("")
        copy_in(app / "data" / name, staged / "data" / name)
    copy_in(app / "data", staged / "data")


def test_the_launcher_of_a_pyz_imports_the_standard_library_alone() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "serverfull" / "building" / "launcher.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, "is built for Python" in done.stderr) == (1, True)
