from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from serverfull import __version__
from serverfull.cli.application import application

Run = Callable[..., Any]

HELP_MAY_IMPORT = {
    "serverfull",
    "serverfull.cli",
    "serverfull.cli.application",
    "serverfull.errors",
}


def test_help_imports_click_and_nothing_else(tmp_path: Path, environ: dict[str, str]) -> None:
    code = "import json, sys\n{}print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    imported = []
    for what in ("", "from serverfull.cli import main; assert main(['--help']) == 0\n"):
        command = [sys.executable, "-c", code.format(what)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path, env=environ)
        imported.append(set(json.loads(done.stderr)))
    new = imported[1] - imported[0]
    assert {name for name in new if name.partition(".")[0] == "serverfull"} <= HELP_MAY_IMPORT
    foreign = {name.partition(".")[0] for name in new} - set(sys.stdlib_module_names) - {"serverfull"}
    assert foreign == {"click"}
    assert not {"asyncio", "http", "ssl", "email", "tomllib", "logging", "unittest"} & {*new}


def test_help_lists_every_command_with_its_own_summary() -> None:
    text = CliRunner().invoke(application, ["--help"]).output
    context = click.Context(application)
    for name in application.list_commands(context):
        command = application.get_command(context, name)
        assert command is not None
        assert command.name == name
        summary = command.get_short_help_str(limit=200).partition("  ")[0]
        assert re.search(rf"^  {name} +{re.escape(summary)}", text, re.MULTILINE), (name, summary)


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "dev", "lambda", "build", "invoke", "deploy", "list", "get", "delete", "logs"),
        *("contracts", "status", "wait", "doctor", "state", "config", "completion"),
    ],
)
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: serverfull {command}")


def test_the_version_is_printed(run: Run) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"serverfull {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sevre"], "Error: there is no command 'sevre'; did you mean serve?"),
        (["build"], "Error: Missing argument 'TARGET'."),
        (["serve", "app", "--port", "70000"], "70000 is not in the range 0<=x<=65535"),
        (["serve", "app", "--prot", "1"], "No such option"),
        (["wait", "--timeout", "soon"], "'soon' is not a duration such as 250ms, 5s or 1m30s"),
        (["invoke", "x", "@gone.json"], "Error: the payload gone.json cannot be read: No such file or directory"),
        (["invoke", "x", "--client-context", "{"], "Error: --client-context is no JSON"),
        (["list", "--endpoint", "localhost:80"], "Error: flag --endpoint: 'localhost:80' is not a URL"),
        (["list", "--config", "gone.toml"], "Error: flag --config: there is no file gone.toml"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(run: Run, arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_setting_is_one_line_and_exits_with_2(run: Run) -> None:
    done = run("config", "show", SERVERFULL_SERVER__PROT="1")
    assert done.returncode == 2
    assert done.stderr == (
        "Error: environment SERVERFULL_SERVER__PROT is no setting; did you mean SERVERFULL_SERVER__PORT?\n"
    )


def test_config_show_prints_each_value_and_where_it_came_from(run: Run, tmp_path: Path) -> None:
    (tmp_path / "serverfull.toml").write_text("[server]\nidle_timeout = '1m30s'\n")
    (tmp_path / "other.toml").write_text("[server]\nworkers = 3\n")
    rows = run("config", "show", PORT="9000", SERVERFULL_SIGNALS__OS_SIGNALS="1 2").stdout.splitlines()
    found = {re.split(r"\s{2,}", row)[0]: re.split(r"\s{2,}", row)[1:] for row in rows}
    assert found["SETTING"] == ["VALUE", "FROM"]
    assert found["server.port"] == ["9000", "environment PORT"]
    assert found["server.idle_timeout"] == ["90", "serverfull.toml: server.idle_timeout"]
    assert found["signals.os_signals"] == ["1,2", "environment SERVERFULL_SIGNALS__OS_SIGNALS"]
    assert found["server.host"] == ["127.0.0.1", "default"]
    shown = json.loads(run("config", "show", "--output", "json", "--config", "other.toml").stdout)
    assert shown["server.workers"] == {"value": 3, "origin": "other.toml: server.workers"}
    assert shown["server.idle_timeout"] == {"value": 60.0, "origin": "default"}


def test_config_reference_prints_the_settings_page(run: Run) -> None:
    assert run("config", "reference").stdout == (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_completes_our_command(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert f"_SERVERFULL_COMPLETE={shell}_complete" in done.stdout


def test_completion_offers_commands_and_flags(run: Run) -> None:
    command = run(_SERVERFULL_COMPLETE="bash_complete", COMP_WORDS="serverfull s", COMP_CWORD="1")
    assert command.stdout.split() == ["plain,serve", "plain,status", "plain,state"]
    command = run(_SERVERFULL_COMPLETE="bash_complete", COMP_WORDS="serverfull de", COMP_CWORD="1")
    assert command.stdout.split() == ["plain,dev", "plain,deploy", "plain,delete"]
    flag = run(_SERVERFULL_COMPLETE="bash_complete", COMP_WORDS="serverfull serve --insec", COMP_CWORD="2")
    assert flag.stdout.split() == ["plain,--insecure-no-auth"]


def test_a_reader_that_went_away_is_no_traceback(tmp_path: Path, environ: dict[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "serverfull", "config", "reference"]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30, cwd=tmp_path, env=environ
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
