"""Pages that show the AWS CLI do what they say: their blocks ``console aws`` are run beside the files of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serverfull.testing.process import HostProcess

pytestmark = pytest.mark.real_client

BARE = "set -e; unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION AWS_REGION\n"
"""Where a reader starts: what a page does not say is not there."""

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def page(request, tmp_path) -> str:
    """A page, whose files are there."""
    text = (DOCS / request.param).read_text()
    for name, content in re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content)
    return text


@pytest.fixture
def host(page, tmp_path):
    """What the first command of the page serves."""
    (target,) = re.findall(r"^\$ serverfull serve ?(.*)$", page, re.MULTILINE)[:1]
    with HostProcess.start(target or None, cwd=tmp_path) as host:
        yield host


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "answer"),
    [
        ("quick-start.md", "Hello Ada!"),
        ("deploying.md", "Hello Ada"),
        ("extensions.md", "hello"),
        ("snapstart.md", "Hello Ada!"),
    ],
    indirect=["page"],
)
def test_the_commands_of_a_page_succeed(page, answer, aws, tmp_path) -> None:
    blocks = re.findall(r"^```console aws\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    done = aws(BARE + re.sub(r"^\$ ", "", "".join(blocks), flags=re.MULTILINE))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.json").read_text() == f'"{answer}"'
