"""The lower rungs of confinement, each with a host of its own that really has no more than that.

A host is started as the user 65534, with user namespaces, without them, and with a group of version 2 that was given to
it. Where a machine keeps memory and processes in version 1, as one that starts both does, version 2 has other
controllers only: then it is a group with one of those that is used, entered, killed and removed, and the limits of
version 2 on memory and processes are what test_confinement.py runs with on a machine that has them there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import serverfull

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user to be refused"
)

NOBODY = 65534

# Becomes a user who cannot make user namespaces: the limit on them holds for all that begins inside this one.
WITHOUT_NAMESPACES = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
user = os.geteuid()
assert libc.unshare(0x10000000) == 0
open("/proc/self/setgroups", "w").write("deny")
open("/proc/self/uid_map", "w").write(f"{user} {user} 1")
open("/proc/self/gid_map", "w").write(f"{user} {user} 1")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())) == 0
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

FILL = """
import errno
try:
    with open("/tmp/full", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
except OSError as error:
    say(error=errno.errorcode[error.errno], size=os.path.getsize("/tmp/full"))
input()
"""

DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        say(pid=os.getpid())
        sys.stdout = sys.__stdout__ = None
        os.dup2(os.open("/dev/null", 0), 1)
        import signal
        signal.pause()
    os._exit(0)
os.wait()
input()
"""

LOCKED_FOLDER = """
import tempfile
import time
folder = tempfile.mkdtemp()
os.mkdir(folder + "/inside")
open(folder + "/inside/file", "w").close()
os.chmod(folder + "/inside", 0)
os.chmod(folder, 0)
say(tmp=tempfile.gettempdir())
input()
"""

JOINED = """
{before}lines = open("/proc/self/status").read().splitlines()
capabilities = [line.split()[1] for line in lines if line.startswith("CapEff")]
say(tmp=os.listdir("/tmp"), opt=os.listdir("/opt"), capabilities=capabilities)
sys.stdin.readline()
"""

OPEN_FILES = """
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", 0))
except OSError:
    say(last=opened[-1])
"""

CAPABILITIES = """
say(capabilities=[line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")])
input()
"""

BOMB = """
import signal
first, others = os.getpid(), 0
try:
    while True:
        if os.fork() == 0:
            signal.pause()
        others += 1
except OSError:
    say(others=others)
input()
"""


@pytest.fixture(scope="module")
def interpreter() -> str:
    """Find a Python that everybody may run."""
    for path in (sys.executable, shutil.which("python3.11", path="/usr/bin"), shutil.which("python3", path="/usr/bin")):
        try:
            check = [path or "", "-c", "import sys; assert sys.version_info >= (3, 11)"]
            subprocess.run(check, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=True)
            return str(path)
        except (OSError, subprocess.CalledProcessError):
            continue
    pytest.skip("no Python 3.11 here that another user may run")


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """Copy the package to where everybody may read it, beside the host of this test."""
    place = Path(tempfile.mkdtemp(prefix="rungs-", dir="/var/tmp"))  # not in /tmp, which functions do not see
    package = Path(next(iter(serverfull.__path__)))
    shutil.copytree(package, place / "serverfull", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).with_name("rung_host.py"), place)
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    (place / "tmp").mkdir()
    (place / "tmp").chmod(0o777)
    yield place
    shutil.rmtree(place)


def environment(folder: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(folder),
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_host(interpreter: str, folder: Path, order: dict[str, Any], before: list[str] | None = None) -> Any:
    command = [interpreter, *(before or []), str(folder / "rung_host.py"), json.dumps(order)]
    done = subprocess.run(
        command,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_host_of_an_ordinary_user_mounts_in_user_namespaces(interpreter: str, open_folder: Path) -> None:
    opt = open_folder / "layers"
    opt.mkdir(mode=0o755)
    (opt / "file").write_text("layer")
    deeds = [
        {"deed": FILL},
        {"deed": "say(opt=os.listdir('/opt'), user=os.getuid()); input()", "opt": str(opt)},
        {"deed": CAPABILITIES},
        {"deed": DAEMON, "end": False},
        {"deed": BOMB},
        {"deed": "kept = bytearray(100 << 20); say(); input()"},
        {
            "deed": JOINED.format(before="open('/tmp/mine', 'w').close(); "),
            "beside": JOINED.format(before=""),
            "opt": str(opt),
        },
    ]
    host = run_host(interpreter, open_folder, {"deeds": deeds})
    if "tmp" in host["why"]:
        pytest.skip(f"an ordinary user cannot mount here: {host['why']['tmp']}")
    assert host["means"] == {"memory": "rlimit", "pids": "rlimit", "tmp": "tmpfs", "opt": "mount", "as_user": True}
    assert "cgroup" in host["why"]["memory"]
    full, layers, capabilities, daemon, bomb, greedy, joined = host["results"]
    assert full["said"] == {"error": "ENOSPC", "size": 4 << 20}
    assert layers["said"] == {"opt": ["file"], "user": NOBODY}
    assert capabilities["said"] == {"capabilities": ["0000000000000000"]}
    assert joined["said"] == {"tmp": ["mine"], "opt": ["file"], "capabilities": ["0000000000000000"]}
    assert joined["beside"] == joined["said"]
    assert daemon["gone"]
    assert 1000 < bomb["said"]["others"] < 1024
    assert greedy["over"]
    assert not full["over"]
    assert all(result["killed"] and result["status"] == -9 for result in host["results"])
    assert list((open_folder / "tmp").iterdir()) == []


def test_a_host_that_may_nothing_still_limits_and_says_why_not_more(interpreter: str, open_folder: Path) -> None:
    deeds = [
        {"deed": LOCKED_FOLDER},
        {"deed": OPEN_FILES},
        {"deed": "kept = bytearray(100 << 20); say(); input()"},
        {"deed": BOMB + "os.killpg(0, 9)", "end": True},
    ]
    host = run_host(interpreter, open_folder, {"deeds": deeds}, ["-c", WITHOUT_NAMESPACES])
    assert host["means"] == {"memory": "rlimit", "pids": "rlimit", "tmp": "folder", "opt": "none", "as_user": False}
    assert "namespace" in host["why"]["tmp"]
    assert "namespace" in host["why"]["opt"]
    folder, descriptors, greedy, bomb = host["results"]
    assert folder["said"]["tmp"].endswith("/0/tmp")
    assert descriptors["said"] == {"last": 1023}
    assert greedy["over"]
    assert greedy["memory"] == 64
    # The user has other processes, perhaps bombs of other tests: some ended meanwhile and made room, others took it.
    assert bomb["most"] >= 1024
    assert 0 < bomb["said"]["others"] < bomb["most"]
    assert not any(result["killed"] for result in host["results"])
    assert list((open_folder / "tmp").iterdir()) == []


@pytest.fixture
def delegated() -> Iterator[tuple[Path, str]]:
    """Give a group of version 2 to the other user, as systemd does with Delegate=yes."""
    line = next((line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line), None)
    if line is None:
        pytest.skip("version 2 is not mounted here")
    root = Path(line.split(" ")[4])
    controllers = (root / "cgroup.controllers").read_text().split()
    if not controllers or not os.access(root / "cgroup.procs", os.W_OK):
        pytest.skip("version 2 has no controller here that could be given away")
    controller = "memory" if "memory" in controllers else controllers[0]
    had = controller in (root / "cgroup.subtree_control").read_text().split()
    group = root / f"test-{os.getpid()}"
    group.mkdir()
    (root / "cgroup.subtree_control").write_text(f"+{controller}")
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "cgroup.threads"):
        os.chown(path, NOBODY, NOBODY)
    yield group, controller
    (group / "cgroup.kill").write_text("1")  # what a test that failed has left
    until = time.monotonic() + 5.0
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < until:
        time.sleep(0.005)
    for path, _, _ in os.walk(group, topdown=False):
        os.rmdir(path)
    if not had:
        (root / "cgroup.subtree_control").write_text(f"-{controller}")


def test_a_host_with_a_group_of_its_own_in_version_2_steps_aside_in_it_and_kills_by_it(
    interpreter: str, open_folder: Path, delegated: tuple[Path, str]
) -> None:
    group, controller = delegated
    command = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
    order = json.dumps({"controller": controller, "deed": DAEMON})
    # Root puts the host into the group, as systemd would, before it becomes the other user.
    script = (
        f"{command}\nimport sys\nos.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    done = subprocess.run(
        [interpreter, "-c", script, str(open_folder / "rung_host.py"), order],
        cwd=open_folder,
        env=environment(open_folder),
        capture_output=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr.decode()
    host = json.loads(done.stdout)
    assert host["place"] == [2, str(group)]
    assert host["inside"]
    assert host["left"]
    assert host["gone"]
    assert host["aside"].endswith("/host")
    assert len(host["remaining"]) == 1  # the host itself is in it until it ends
