"""`serverfull dev` as a developer meets it: what it prints, and what a saved file comes to."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from serverfull.testing.process import HostProcess

HANDLER = "def handler(event, context):\n    print('asked')\n    return {word!r}\n"
APP = "def local(event, context):\n    return {word!r}\n\nfunctions = [local]\n"
BUILD = {"Runtime": "python3.12", "Handler": "app.handler", "Build": "echo copying; cp app.src app.py"}


def test_dev_serves_a_folder_and_a_module_as_they_are_edited_and_prints_how_to_invoke(tmp_path: Path) -> None:
    made = tmp_path / "functions" / "made"
    made.mkdir(parents=True)
    (made / "function.json").write_text(json.dumps(BUILD | {"Runtime": f"python3.{sys.version_info.minor}"}))
    (made / "app.src").write_text(HANDLER.format(word="one"))
    (tmp_path / "functions" / "broken").mkdir()
    (tmp_path / "functions" / "broken" / "function.json").write_text('{"Handlr": "x"}')
    (tmp_path / "app.py").write_text(APP.format(word="here"))

    def until(name: str, word: str) -> dict[str, str]:
        deadline = time.monotonic() + 20
        while (answer := host.invoke(name)).json() != word:
            assert time.monotonic() < deadline, answer
            time.sleep(0.01)
        return dict(answer.headers)

    host = HostProcess.start("functions", "app.py", cwd=tmp_path, command="dev")
    try:
        host.wait_for_stdout("--function-name local ")
        assert "broken: cannot be served: " in host.wait_for_stdout("broken")
        assert "aws lambda invoke --endpoint-url" in host.wait_for_stdout("--function-name made ")
        line = shlex.split(host.wait_for_stdout("serverfull invoke made "))
        done = subprocess.run([sys.executable, "-m", *line], capture_output=True, text=True, timeout=40)
        assert (done.returncode, done.stdout.strip()) == (0, '"one"'), done.stderr
        host.wait_for_stdout("copying")
        host.wait_for_stdout("asked")
        assert until("local", "here")["x-serverfull-code-generation"] == "1"
        (made / "app.src").write_text(HANDLER.format(word="two"))
        assert until("made", "two")["x-serverfull-code-generation"] == "2"
        (tmp_path / "app.py").write_text(APP.format(word="there"))
        assert until("local", "there")["x-serverfull-code-generation"] == "2"
    finally:
        code = host.stop()
    assert code == 0
