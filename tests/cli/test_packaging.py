"""What goes into a deployment package, and which handler is found in it."""

from __future__ import annotations

import os
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path

import pytest

from serverfull.cli import packaging
from serverfull.cli.handlers import find_handler, has_module_of
from serverfull.cli.packaging import PackageRefused, package_of
from serverfull.storage.packages import check, unpack
from serverfull.testing.deployments import zipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "hello"
    made.mkdir()
    return made


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(package: bytes) -> list[str]:
    return zipfile.ZipFile(BytesIO(package)).namelist()


def package_with(**modules: str) -> bytes:
    return zipped({f"{name}.py": text for name, text in modules.items()})


def test_the_same_files_give_the_same_package_whatever_their_times_and_their_order(tmp_path: Path) -> None:
    packages = []
    for number, order in enumerate((("a.py", "b.py", "sub/c.txt"), ("sub/c.txt", "b.py", "a.py"))):
        folder = tmp_path / str(number) / "same"
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
            os.utime(folder / name, (number * 1e9, number * 1e9))
        packages.append(package_of(folder))
    assert packages[0] == packages[1]
    assert packages[0].name == "same"
    assert names(packages[0].content) == ["a.py", "b.py", "sub/c.txt"]


def test_programs_stay_programs_and_inner_links_stay_links(folder: Path, tmp_path: Path) -> None:
    fill(folder, lib__real="content", tool="#!/bin/sh\n")
    (folder / "tool").chmod(0o700)
    (folder / "link").symlink_to("lib/real")
    (folder / "folder").symlink_to("lib")
    package = package_of(folder).content
    check(package)
    unpack(package, tmp_path / "unpacked")
    assert os.readlink(tmp_path / "unpacked" / "link") == "lib/real"
    assert (tmp_path / "unpacked" / "folder" / "real").read_text() == "content"
    modes = {entry.filename: entry.external_attr >> 16 for entry in zipfile.ZipFile(BytesIO(package)).infolist()}
    assert modes == {
        "folder": stat.S_IFLNK | 0o777,
        "lib/real": 0o100644,
        "link": stat.S_IFLNK | 0o777,
        "tool": 0o100755,
    }


def test_caches_version_control_and_state_stay_out_and_so_does_what_the_folder_says(folder: Path) -> None:
    fill(folder, a_DOT_py="", sub__a_DOT_pyc="", sub__keep_DOT_txt="", sub__notes_DOT_md="")
    for name in ("__pycache__", ".git", ".venv", ".serverfull", "sub/__pycache__", "tests", "data"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "file.txt").write_text("")
    (folder / ".serverfullignore").write_text("# comment\n\n*.md\ntests/\n/data/file.*\nsub/nothing\n")
    assert names(package_of(folder).content) == ["a.py", "sub/keep.txt"]


def test_a_virtual_environment_stays_out_whatever_its_name(folder: Path) -> None:
    fill(folder, a_DOT_py="", env__keep_DOT_txt="", py312__pyvenv_DOT_cfg="home = /usr/bin", py312__lib__b_DOT_py="")
    for name in (".mypy_cache", ".pytest_cache", ".ruff_cache", ".hg", ".svn"):
        fill(folder / name, file="")
    assert names(package_of(folder).content) == ["a.py", "env/keep.txt"]


def test_a_link_to_what_is_deployed_is_what_it_leads_to(tmp_path: Path) -> None:
    fill(tmp_path / "sub", greet_DOT_py="def handler(e): pass\n")
    for link, target in (("hello.py", "sub/greet.py"), ("folder", "sub")):
        (tmp_path / link).symlink_to(target)
        package = package_of(tmp_path / link)
        assert (package.name, find_handler(package.content)) == (Path(target).stem, "greet.handler")


def test_what_must_not_be_read_is_named(
    open_to_all: Path, powerless: Callable[[Path], AbstractContextManager[None]]
) -> None:
    fill(open_to_all, a_DOT_py="", sub__b_DOT_py="")
    with powerless(open_to_all):
        for path in (open_to_all / "a.py", open_to_all / "sub"):
            path.chmod(0)
            with pytest.raises(PackageRefused, match=f"^{path} cannot be read: Permission denied$"):
                package_of(open_to_all)
            path.chmod(0o700)


def test_a_file_that_is_neither_module_nor_archive_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, notes_DOT_txt="")
    with pytest.raises(PackageRefused, match=r"notes.txt is neither a directory nor a .py file nor a .zip file"):
        package_of(tmp_path / "notes.txt")


def test_one_file_is_a_package_and_a_zip_file_is_taken_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path, greet_DOT_py="def handler(e): pass\n", other_DOT_py="")
    package = package_of(tmp_path / "greet.py")
    assert (package.name, names(package.content)) == ("greet", ["greet.py"])
    (tmp_path / "ready.zip").write_bytes(package_with(app=""))
    assert package_of(tmp_path / "ready.zip") == packaging.SourcePackage("ready", package_with(app=""))


def test_the_current_folder_has_a_name_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, a_DOT_py="")
    monkeypatch.chdir(folder)
    assert package_of(Path()).name == "hello"


@pytest.fixture
def pipe(folder: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket has to be short
        sock.bind("socket")
        os.chdir(here)
        yield


@pytest.mark.usefixtures("pipe")
def test_what_is_no_file_is_refused(folder: Path) -> None:
    with pytest.raises(PackageRefused, match=r"socket is neither a file .* \.serverfullignore can leave it out"):
        package_of(folder)


@pytest.mark.parametrize("target", ["../outside.py", "/etc/hostname", "{folder}/a.py"])
def test_a_link_that_leads_nowhere_on_another_machine_is_refused(folder: Path, target: str) -> None:
    fill(folder, a_DOT_py="")
    fill(folder.parent, outside_DOT_py="")
    (folder / "link").symlink_to(target.format(folder=folder))
    with pytest.raises(PackageRefused, match=r"link is a link to .* which is not in the package"):
        package_of(folder)


def test_what_is_too_large_is_refused_before_it_is_packed(folder: Path) -> None:
    with (folder / "big").open("wb") as big:
        big.truncate(262_144_001)
    with pytest.raises(PackageRefused, match="larger than a host takes: 250 MB unzipped"):
        package_of(folder)


def test_what_is_too_large_when_packed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "ZIPPED_PACKAGE_BYTES", 1 << 20)
    (folder / "noise").write_bytes(os.urandom(1 << 20))
    with pytest.raises(PackageRefused, match="larger than a host takes: 1 MB zipped"):
        package_of(folder)
    (folder.parent / "noise.zip").write_bytes(os.urandom((1 << 20) + 1))
    with pytest.raises(PackageRefused, match="larger than a host takes: 1 MB zipped"):
        package_of(folder.parent / "noise.zip")


def test_an_empty_folder_and_unreadable_names_are_refused(folder: Path) -> None:
    (folder / "sub").mkdir()
    with pytest.raises(PackageRefused, match="hello has no files to deploy"):
        package_of(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("")
    with pytest.raises(PackageRefused, match="is not UTF-8"):
        package_of(folder)


@pytest.mark.parametrize(
    ("modules", "handler"),
    [
        ({"lambda_function": "def handler(e): pass", "app": "def handler(e): pass"}, "lambda_function.handler"),
        ({"lambda_function": "from x import y as lambda_handler"}, "lambda_function.lambda_handler"),
        ({"app": "async def handler(e): pass\ndef other(): pass", "more": "def helper(): pass"}, "app.handler"),
        ({"app": "handler = make()"}, "app.handler"),
        ({"app": "handler: object = make()"}, "app.handler"),
        ({"app": "def _private(): pass\ndef order(event): pass\nvalue = 1"}, "app.order"),
        ({"sub/app": "def handler(e): pass", "main": "def handler(e): pass"}, "main.handler"),
    ],
)
def test_the_obvious_handler_is_found(modules: dict[str, str], handler: str) -> None:
    package = package_with(**modules)
    assert find_handler(package) == handler
    assert has_module_of(package, handler)
    assert not has_module_of(package, "absent.handler")


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"a": "def handler(e): pass", "b": "def handler(e): pass"},
            "--handler MODULE.FUNCTION: there are a.handler, b",
        ),
        ({"a": "def one(): pass\ndef two(): pass"}, "--handler MODULE.FUNCTION: there are a.one, a.two"),
        ({"sub/a": "def handler(e): pass"}, "no module at the root has a function"),
        ({"a": "x = 1\ndef ("}, r"a.py is not Python: .* \(a.py, line 2\)$"),
        ({"a": "x = '\0'"}, "a.py is not Python: "),
        ({"a": "x = " + "-" * 100_000 + "1"}, "a.py is not Python: "),
    ],
)
def test_a_handler_that_is_not_obvious_has_to_be_named(modules: dict[str, str], message: str) -> None:
    with pytest.raises(PackageRefused, match=message):
        find_handler(package_with(**modules))


def test_a_package_that_is_no_zip_archive_has_no_handler() -> None:
    with pytest.raises(PackageRefused, match="no zip archive"):
        find_handler(b"text")
