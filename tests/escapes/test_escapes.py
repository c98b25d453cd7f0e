"""All attempts to escape, at all levels of sandboxes: what gets through where, and what the page of it promises."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from serverfull.runtimes import child
from serverfull.runtimes.process.means import probe_strict
from serverfull.testing import escapes
from serverfull.testing.escapes import attempts, write
from tests.escapes.levels import COLUMNS, CONTAINER, LANDLOCK, PAGE, THROUGH, Results, broken, everything, promised

pytestmark = pytest.mark.skipif(
    bool(probe_strict().why), reason=f"this machine allows no strict sandbox: {probe_strict().why}"
)

NAMES = [attempt.name for attempt in attempts()]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the page is of a host that is root")


@pytest.fixture(scope="module")
def results() -> Mapping[str, Results]:
    return asyncio.run(everything())


@pytest.mark.parametrize("name", NAMES)
def test_behind_walls_nothing_gets_through(results: Mapping[str, Results], name: str) -> None:
    through, what = results["strict"][name]
    assert not through, what


@as_root
@pytest.mark.parametrize("column", [column for column in COLUMNS if column != CONTAINER])
def test_the_page_promises_no_more_than_is_seen(results: Mapping[str, Results], column: str) -> None:
    assert broken(column, results[column]) == {}


def test_the_page_has_all_attempts_and_counts_them() -> None:
    said, text = promised(), PAGE.read_text()
    assert len(said) == len(NAMES) >= 60
    assert f": {len(NAMES)} attempts," in text
    (totals,) = re.findall(rf"\*\*stopped, of {len(NAMES)}\*\* \| (.+) \|", text)
    counted = [sum(row[at] != THROUGH for row in said.values()) for at in range(len(COLUMNS))]
    assert totals == " | ".join(map(str, counted))
    assert counted[COLUMNS.index("strict")] == len(NAMES)


@as_root
def test_where_nothing_holds_a_function_the_attempts_see_ways_out(results: Mapping[str, Results]) -> None:
    """One that gets through nowhere proves nothing: most do here, whatever this kernel lacks."""
    through = {name for name, (is_through, _) in results["none"].items() if is_through}
    assert len(through) >= 80, {name: results["none"][name][1] for name in set(NAMES) - through}


@pytest.mark.skipif(not probe_strict().landlock, reason="this kernel has no Landlock")
@pytest.mark.parametrize("name", ["reach_a_unix_socket", "send_udp_on_loopback", "send_udp_out"])
def test_landlock_alone_is_no_sandbox(results: Mapping[str, Results], name: str) -> None:
    through, why = results[LANDLOCK][name]
    if name == "send_udp_out" and not results["none"][name][0]:
        pytest.skip("this machine has no way out itself")
    assert through, why
    assert not results[LANDLOCK]["read_a_secret_of_the_host"][0]  # and it was there


NOBODY = 65534
PYTHON = "/usr/bin/python3"


@as_root
@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON} that every user may run")
def test_where_the_host_is_not_root_nothing_gets_through_either() -> None:
    """Its bait is of that user too: no other right than the walls keeps the function from it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as kept:  # where every user gets: TMPDIR may be one user's own
        folder = Path(kept) / "seen"
        shutil.copytree(next(iter(child.__path__)), folder / "child", ignore=shutil.ignore_patterns("__pycache__"))
        write(folder)
        script = shutil.copy(Path(__file__).parent / "as_user.py", folder)
        shutil.copytree(Path(escapes.__file__).parent, folder / "escapes")
        subprocess.run(["chmod", "-R", "a+rX", kept], check=True)
        try:
            tried = subprocess.run(
                [PYTHON, "-I", "-c", _BAITED, PYTHON, script, folder],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                env={"PATH": "/usr/bin:/bin", "HOME": "/tmp"},
                cwd="/",
                capture_output=True,
                timeout=120,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise AssertionError(error.stderr.decode()) from None
    told = json.loads(tried.stdout)
    if isinstance(told, str) and "namespaces" in told:
        pytest.skip(f"users may make no namespaces here: {told}")
    user, process, results = told
    assert (user, process) == (NOBODY, 2)
    assert {name: what for name, (through, what) in results.items() if through} == {}
    assert len(results) == len(NAMES)


_BAITED = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[3] + "/escapes")
from baits import baits
with baits() as bait:
    done = subprocess.run([sys.argv[1], "-I", *sys.argv[2:], json.dumps(bait)])
sys.exit(done.returncode)
"""
