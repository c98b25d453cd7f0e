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
from serverfull.building.recipes import _file_name, _output
from serverfull.building.staging import (
    OWN_REQUIREMENTS,
    _copy_serverfull,
    _is_installed,
    _projects,
    copy_in,
    not_inside,
    own_packages,
)
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
    plain, typed = (own_packages(found(function=name).modules, client=True) for name in ("hello", "typed"))
    assert plain == {"simplejson", "awslambdaric"}
    assert typed - plain == {"pydantic"}


def test_a_module_that_imports_the_server_gets_it(app: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(app)
    (app / "app.py").write_text("from serverfull import serve\nfunctions = {'hello': print}\n")
    modules = found().modules
    assert "aiohttp" in own_packages(modules, client=True)
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


@pytest.mark.parametrize("name", ["my.app", "queue", "json", "__main__", "serverfull_artifact", "awslambdaric"])
def test_a_file_that_its_name_would_not_bring_back_is_refused(
    app: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(app)
    (app / f"{name}.py").write_text("def hello():\n    return 1\n")
    with pytest.raises(BuildFailed, match="rename it"):
        inspect(Plan(target=f"{name}.py:hello"))


def test_files_of_the_current_folder_do_not_hide_what_serverfull_needs(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(app)
    for name in ("simplejson.py", "json.py"):
        (app / name).write_text("")
    assert found(function="hello").function == "hello"


def test_what_the_function_imports_from_elsewhere_and_nothing_brings_is_found(
    app: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere, library = tmp_path_factory.mktemp("elsewhere"), app / "library"
    library.mkdir()
    (library / "inside.py").write_text("")
    for name in ("common/__init__.py", "orjson.py", "provided.py", "spread/one/__init__.py", "spread/two.py"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("def loads(_): pass\ndumps = loads\n")
    installed = elsewhere / "site-packages"
    installed.mkdir()
    (installed / "optional.py").write_text("")
    (installed / "library.py").write_text("import optional")
    (app / "plugin.py").write_text("")
    (app / "app.py").write_text(
        "import sysconfig; sysconfig.get_config_vars()  # whose module has a name of its own on each platform\n"
        "from library import optional\n"
        "import common, inside, orjson, provided, spread.one, spread.two, shop.prices, importlib.util as u, sys\n"
        "spec = u.spec_from_file_location('any_name', __file__.replace('app.py', 'plugin.py'))\n"
        "sys.modules['any_name'] = u.module_from_spec(spec)\n"
        "functions = {'hello': print}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{elsewhere}:{library}:{installed}")
    monkeypatch.chdir(app)
    seen = found()
    staged = app / "staged"
    for file in map(Path, seen.files):
        copy_in(file, staged / file.name)
    copy_in(elsewhere / "spread" / "two.py", staged / "spread" / "two.py")
    copy_in(installed / "library.py", staged / "library.py")
    lacking = not_inside(seen, staged, provided={"provided"})
    assert lacking == {
        "common": str(elsewhere / "common" / "__init__.py"),
        "inside": str(library / "inside.py"),
        "orjson": str(elsewhere / "orjson.py"),
        "spread.one": str(elsewhere / "spread" / "one" / "__init__.py"),
    }


def test_a_file_of_a_package_does_not_bring_the_package_as_if_it_were_a_folder_of_modules(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app / "shop" / "handlers.py").write_text("import shop\ndef hello():\n    return 1\n")
    monkeypatch.setenv("PYTHONPATH", str(app))
    monkeypatch.chdir(app)
    seen = inspect(Plan(target="shop/handlers.py:hello"))
    assert seen.files == (str(app / "shop" / "handlers.py"),)
    assert not_inside(seen, app / "shop") == {"shop": str(app / "shop" / "__init__.py")}


def test_a_project_that_pip_has_installed_does_not_go_in_a_second_time(app: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    copy_in(app / "shop", staged / "shop")
    (staged / "shop-1.dist-info").mkdir()
    (staged / "shop-1.dist-info" / "direct_url.json").write_text(f'{{"url": "{app.as_uri()}", "dir_info": {{}}}}')
    projects = list(_projects(staged))
    assert _is_installed(app / "shop", staged, projects)
    assert not _is_installed(app / "app.py", staged, projects)
    assert not _is_installed(app.parent / "shop", staged, projects)


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
    for number, mode in enumerate((0o600, 0o664)):
        folder = tmp_path / str(number)
        (folder / "inner").mkdir(parents=True)
        for name in ("b", "a", "inner/c")[:: 1 if number else -1]:
            (folder / name).write_text(name)
            (folder / name).chmod(mode)
        (folder / "b").chmod(mode | 0o100)
        archive = tmp_path / f"{number}.zip"
        write_zip(folder, archive, programs=["a"])
        archives.append(archive.read_bytes())
    assert archives[0] == archives[1]
    with zipfile.ZipFile(tmp_path / "0.zip") as packed:
        assert packed.namelist() == ["a", "b", "inner/c"]
        assert [entry.external_attr >> 16 for entry in packed.infolist()] == [0o100755, 0o100755, 0o100644]


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
        (("--format", "zip", "--function", "hello", "--output", "app.py"), 2, "app.py is in"),
        (("--format", "zip", "--function", "hello", "--output", "shop/"), 2, "name another place with --output"),
        (("--format", "zip", "--function", "hello", "--output", "bad.txt/a.zip"), 1, "a.zip cannot be made"),
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


def test_the_file_is_named_after_the_function_and_stays_in_its_folder(tmp_path: Path) -> None:
    assert _file_name("b-2_x") == "b-2_x"
    assert [_file_name(name) for name in ("a/b", "../../evil", "..", "")] == ["a_b", "evil", "function", "function"]
    places = [_output(place, "a.zip") for place in (None, str(tmp_path), "absent/", "absent")]
    assert places == [Path("a.zip"), tmp_path / "a.zip", Path("absent/a.zip"), Path("absent")]


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
    (app / "shop.py").write_text("")
    with pytest.raises(BuildFailed, match=r"cannot go in as shop\.py"):  # the package would hide it
        copy_in(app / "shop.py", staged / "shop.py")
    copy_in(app / "unused.py", staged / "unused.py")
    (app / "unused").mkdir()
    with pytest.raises(BuildFailed, match="cannot go in as unused"):
        copy_in(app / "unused", staged / "unused")
    (app / "data").mkdir()
    for name in ("a.txt", "b.txt"):  # a folder that is no package takes more
        (app / "data" / name).write_text("")
        copy_in(app / "data" / name, staged / "data" / name)
    copy_in(app / "data", staged / "data")


def test_the_launcher_of_a_pyz_imports_the_standard_library_alone() -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "serverfull" / "building" / "launcher.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, "is built for Python" in done.stderr) == (1, True)
