"""What packages may ask for, and what is refused by name because it would lead the installer elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serverfull.dependencies.manifests import LARGEST, Manifest, Refused, find_manifest


def package(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def found(folder: Path, files: Mapping[str, str | bytes], runtime: str = "python3.12") -> Manifest | None:
    return find_manifest(package(folder, files), runtime).manifest


def lines(manifest: Manifest | None, name: str = "requirements.txt") -> list[str]:
    assert manifest is not None
    return manifest.files[name].decode().splitlines()


@pytest.mark.parametrize(
    "line",
    [
        "requests",
        "requests==2.31.0",
        "requests[security,socks] >= 2.8.1, != 2.8.3, < 3",
        "zope.interface~=5.0; python_version < '3.13' and sys_platform == \"linux\"",
        "torch==2.3.0+cpu",
        "flask (>=2)",
        f"attrs==23.2.0 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}",
        "foo==1.*",
        "foo===1!2.0",
    ],
)
def test_requirements_of_an_index_are_passed_on_as_they_are(tmp_path: Path, line: str) -> None:
    assert lines(found(tmp_path, {"requirements.txt": f"{line}\n"})) == [line]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("foo @ https://example.com/foo-1.0-py3-none-any.whl", "no addresses"),
        ("foo @ file:///etc/passwd", "no addresses"),
        ("foo@git+ssh://git@example.com/foo.git", "no addresses"),
        ("git+https://example.com/foo.git", "no addresses"),
        ("https://example.com/foo.whl", "no addresses"),
        ("../outside.whl", "no file of the package"),
        ("/tmp/wheels/foo-1.0-py3-none-any.whl", "no file of the package"),
        ("./missing.whl", "no file of the package"),
        (".", "no folders"),
        ("./library", "no folders"),
        ("foo==${PIP_INDEX_URL}", "no addresses"),
        ("foo==1.0; os_name == `id`", "no addresses"),
        ("-e .", "-e is not supported"),
        ("--editable=.", "--editable is not supported"),
        ("-i https://example.com/simple", "-i is not taken from a package"),
        ("-ihttps://example.com/simple", "-i is not taken from a package"),
        ("--index-url https://example.com/simple", "--index-url is not taken"),
        ("--extra-index-url=https://example.com/simple", "--extra-index-url is not taken"),
        ("--find-links ./wheels", "--find-links is not taken"),
        ("-f /etc", "-f is not taken"),
        ("--trusted-host example.com", "--trusted-host is not taken"),
        ("--no-binary :all:", "--no-binary is not supported"),
        ("--config-settings x", "--config-settings is not supported"),
        ("-r /etc/passwd", "is no file of the package"),
        ("-r ../../secrets.txt", "is no file of the package"),
        ("--requirement=../up.txt", "is no file of the package"),
        ("-c https://example.com/constraints.txt", "is no file of the package"),
        ("-r requirements.txt", "included by itself"),
        ("f" * 2000, "no addresses"),
    ],
)
def test_what_would_lead_an_installer_elsewhere_is_refused_by_name(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        found(tmp_path, {"requirements.txt": f"requests\n{line}\n"})


def test_comments_continued_lines_and_included_files_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "\ufeff# all\r\n-r more/base.txt  # that too\r\n--pre\r\nflask \\\r\n  >=2 # web\r\n\r\n",
        "more/base.txt": "-c constraints.txt\nsix\nurl-with#hash==1\n",
        "more/constraints.txt": "six<2\n",
    }
    with pytest.raises(Refused):  # a number sign begins a comment behind a space alone
        found(tmp_path, files)
    manifest = found(tmp_path, {**files, "more/base.txt": "-c constraints.txt\nsix\n"})
    assert lines(manifest) == ["--pre", "six", "flask    >=2"]
    assert lines(manifest, "constraints.txt") == ["six<2"]


def test_a_wheel_inside_the_package_is_installed_from_there(tmp_path: Path) -> None:
    manifest = found(
        tmp_path, {"requirements.txt": "wheels/foo-1.0-py3-none-any.whl\n", "wheels/foo-1.0-py3-none-any.whl": "1"}
    )
    assert manifest is not None
    assert (lines(manifest), manifest.copied) == (
        ["./wheels/foo-1.0-py3-none-any.whl"],
        ["wheels/foo-1.0-py3-none-any.whl"],
    )
    other = found(tmp_path, {"wheels/foo-1.0-py3-none-any.whl": "2"})
    assert other is not None
    assert other.digest != manifest.digest


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"requirements.txt": "# nothing\n\n"},
        {"requirements.txt": "requests\n", "requests-2.31.0.dist-info/METADATA": ""},
        {"requirements.txt": "requests\n", "requests.egg-info/PKG-INFO": ""},
        {"requirements.txt": "requests\n", ".requirements.zip": ""},
        {"pyproject.toml": "[tool.ruff]\nline-length = 100\n"},
        {"pyproject.toml": "[project]\nname = 'app'\nversion = '1'\n"},
        {"package.json": '{"dependencies": {"left": "1"}}'},
    ],
)
def test_nothing_is_installed_where_nothing_is_asked_for_or_it_is_vendored(
    tmp_path: Path, files: Mapping[str, str]
) -> None:
    assert found(tmp_path, files) is None


def test_dependencies_of_a_project_are_read_unless_there_are_requirements(tmp_path: Path) -> None:
    project = "[build-system]\nrequires = ['evil']\n[project]\nname = 'app'\nversion = '1'\ndependencies = ['six>=1']\n"
    manifest = found(tmp_path, {"pyproject.toml": project})
    assert manifest is not None
    assert (manifest.source, lines(manifest)) == ("pyproject.toml", ["six>=1"])
    assert found(tmp_path, {"pyproject.toml": f"{project}\n[tool.ruff]\n"}) == manifest
    manifest = found(tmp_path, {"requirements.txt": "attrs\n"})
    assert manifest is not None
    assert (manifest.source, lines(manifest)) == ("requirements.txt", ["attrs"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[project]\nname = 'a'\ndynamic = ['version', 'dependencies']\n", "dynamic dependencies"),
        ("[project\n", "cannot be read"),
        ("[project]\ndependencies = 'six'\n", "no list of texts"),
        ("[project]\ndependencies = ['foo @ git+https://example.com/foo']\n", "pyproject.toml: 'foo @ git"),
    ],
)
def test_a_project_whose_dependencies_cannot_be_known_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        found(tmp_path, {"pyproject.toml": text})


def test_dependencies_that_poetry_alone_would_read_are_remarked_upon(tmp_path: Path) -> None:
    root = package(tmp_path, {"pyproject.toml": "[tool.poetry.dependencies]\nsix = '*'\n"})
    findings = find_manifest(root, "python3.12")
    assert findings.manifest is None
    assert "[tool.poetry]" in findings.remarks[0]


def test_a_changed_comment_makes_another_digest_so_that_there_is_a_way_to_install_anew(tmp_path: Path) -> None:
    first = found(tmp_path, {"requirements.txt": "six\n"})
    second = found(tmp_path, {"requirements.txt": "six  # newer\n"})
    assert first is not None
    assert second is not None
    assert first.digest != second.digest


def test_what_is_no_utf_8_or_far_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not UTF-8"):
        found(tmp_path, {"requirements.txt": b"six\n\xff\xfe\n"})
    with pytest.raises(Refused, match="has more than"):
        found(tmp_path, {"requirements.txt": b"#" * (LARGEST + 1)})


# -------------------------------------------------------------------------------------------------------- for Node.js


def node(folder: Path, document: Any, **files: str) -> Manifest | None:
    text = document if isinstance(document, str) else json.dumps(document)
    return found(
        folder, {"package.json": text, **{name.replace("__", "."): c for name, c in files.items()}}, "nodejs22.x"
    )


@pytest.mark.parametrize(
    "wanted", ["^1.2.3", "1.x || >=2.5.0 <3", "latest", "*", "", "npm:@scope/other@^2", "~0.1.0-beta.1"]
)
def test_versions_and_tags_of_the_registry_are_passed_on(tmp_path: Path, wanted: str) -> None:
    manifest = node(tmp_path, {"dependencies": {"@scope/left": wanted}, "devDependencies": {"x": "git+ssh://x"}})
    assert manifest is not None
    assert json.loads(manifest.files["package.json"]) == {"dependencies": {"@scope/left": wanted}}


@pytest.mark.parametrize(
    "wanted",
    [
        "https://example.com/left.tgz",
        "git+ssh://git@example.com/left.git",
        "github:user/left",
        "user/left",
        "file:../left",
        "file:./left",
        "file:/etc/left.tgz",
        "file:a/../../left.tgz",
        "link:./left",
        "workspace:*",
        "..",
        "./left",
        "~/left",
        7,
        {"version": "1"},
    ],
)
def test_what_would_lead_npm_elsewhere_is_refused_by_name(tmp_path: Path, wanted: Any) -> None:
    with pytest.raises(Refused, match=r"package.json: left:"):
        node(tmp_path, {"dependencies": {"left": wanted}})


def test_overrides_are_looked_at_as_dependencies_are(tmp_path: Path) -> None:
    overrides = {"left": {"right": "2", ".": "1"}, "up": "$left"}
    assert node(tmp_path, {"dependencies": {"left": "1"}, "overrides": overrides}) is not None
    for wanted in ("git+ssh://git@example.com/left.git", "file:../left", 7, "$../left"):
        with pytest.raises(Refused, match=r"package.json: right:"):
            node(tmp_path, {"dependencies": {"left": "1"}, "overrides": {"left": {"right": wanted}}})


@pytest.mark.parametrize("name", ["../left", "a/b/c", "", ".hidden", "left\n", "@scope/../x"])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="no name of a package"):
        node(tmp_path, {"dependencies": {name: "1"}})


@pytest.mark.parametrize("document", ["[]", "{", "1" * 5000, "[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, document: str) -> None:
    with pytest.raises(Refused, match="no JSON object"):
        node(tmp_path, document)


def test_workspaces_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="workspaces"):
        node(tmp_path, {"dependencies": {"left": "1"}, "workspaces": ["packages/*"]})


def test_a_tarball_inside_the_package_is_installed_from_there(tmp_path: Path) -> None:
    package(tmp_path, {"vendor/left-1.0.0.tgz": "x"})
    manifest = node(tmp_path, {"dependencies": {"left": "file:./vendor/left-1.0.0.tgz"}})
    assert manifest is not None
    assert manifest.copied == ["vendor/left-1.0.0.tgz"]


def test_a_package_with_node_modules_or_without_dependencies_is_left_as_it_is(tmp_path: Path) -> None:
    assert node(tmp_path, {"type": "module", "devDependencies": {"left": "1"}}) is None
    (tmp_path / "node_modules").mkdir()
    assert node(tmp_path, {"dependencies": {"left": "1"}}) is None


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ({"node_modules/../../../etc/left": {}}, "no place below node_modules"),
        ({"../left": {}}, "no place below node_modules"),
        ({"/etc/left": {}}, "no place below node_modules"),
        ({"node_modules/left": {"link": True, "resolved": "../.."}}, "is a link"),
        ({"node_modules/left": {"resolved": "git+ssh://git@example.com/left.git#1"}}, "comes from"),
        ({"node_modules/left": {"resolved": "file:../left.tgz"}}, "no file of the package"),
        ({"node_modules/left": {"version": "file:/etc/passwd"}}, "is not installed here"),
        ({"node_modules/left": []}, "is a link"),
        (None, "of npm 6 or before"),
    ],
)
def test_a_lock_file_that_leads_elsewhere_is_refused_by_name(tmp_path: Path, packages: Any, said: str) -> None:
    lock = json.dumps({"lockfileVersion": 3, **({} if packages is None else {"packages": packages})})
    package(tmp_path, {"package-lock.json": lock})
    with pytest.raises(Refused, match=said):
        node(tmp_path, {"dependencies": {"left": "1"}})


def test_a_lock_file_with_tarballs_of_the_package_is_given_without_addresses(tmp_path: Path) -> None:
    (tmp_path / "own.tgz").write_bytes(b"")
    away = {"version": "1.0.0", "resolved": "https://example.com/left-1.0.0.tgz", "integrity": "sha512-x"}
    own = {"version": "1.0.0", "resolved": "file:own.tgz"}
    packages = {"": {}, "node_modules/left": away, "node_modules/own": own}
    package(tmp_path, {"package-lock.json": json.dumps({"lockfileVersion": 3, "packages": packages})})
    manifest = find_manifest(
        package(tmp_path, {"package.json": '{"dependencies": {"left": "1"}}'}), "nodejs22.x"
    ).manifest
    assert manifest is not None
    del away["resolved"]
    assert json.loads(manifest.files["package-lock.json"])["packages"] == packages
    assert manifest.copied == ["own.tgz"]


def test_a_lock_file_is_given_to_npm_as_it_is(tmp_path: Path) -> None:
    entry = {"version": "1.0.0", "resolved": "https://registry.example/left/-/left-1.0.0.tgz", "integrity": "sha512-x"}
    lock = json.dumps({"lockfileVersion": 3, "packages": {"": {}, "node_modules/left": entry}})
    package(tmp_path, {"package-lock.json": lock, ".npmrc": "registry=https://example.com", "yarn.lock": ""})
    findings = find_manifest(package(tmp_path, {"package.json": '{"dependencies": {"left": "1"}}'}), "nodejs22.x")
    assert findings.manifest is not None
    assert findings.manifest.locked
    assert findings.manifest.files["package-lock.json"] == lock.encode()
    assert [remark.partition(" ")[0] for remark in findings.remarks] == [".npmrc", "yarn.lock"]


def test_programs_of_their_own_bring_what_they_need(tmp_path: Path) -> None:
    files = {"requirements.txt": "six\n", "package.json": '{"dependencies": {"left": "1"}}'}
    assert found(tmp_path, files, "provided.al2023") is None
