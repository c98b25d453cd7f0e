"""Functions that take all that they can get, each a real process that carries out its orders and then does the deed.

The sandboxes here are held by what this machine offers: control groups of version 2 or 1, or neither. The rungs below,
for a host that is not root and for one that has no namespaces, are in test_confinement_rungs.py.
"""

from __future__ import annotations

import ast
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serverfull.errors import ConfigurationError
from serverfull.runtimes import child
from serverfull.runtimes.process.cgroups import GroupRefused, Place
from serverfull.runtimes.process.confinement import MEGABYTE, Confinement
from serverfull.runtimes.process.means import Level, Means, probe, sweep
from serverfull.runtimes.sandboxes.leftovers import make_own_folder, own_name, remove_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are the Linux kernel's")

CHILD = next(iter(child.__path__))

BEGIN = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import confine
confine.apply(json.loads(sys.argv[2]), keep=(0, 1, 2), parent=os.getppid())
def say(**what):
    print(json.dumps(what), flush=True)
exec(sys.argv[3])
"""


class Sandbox:
    """A confined process that does what it is told, and says what came of it in lines of JSON."""

    def __init__(self, confinement: Confinement, folder: Path, deed: str) -> None:
        self.confinement = confinement
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", BEGIN, CHILD, json.dumps(confinement.orders), deed],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **confinement.environment},
            close_fds=False,
        )
        self.pid = self._process.pid

    def said(self, within: float = 20.0) -> Any:
        """Read the next line; fail where there is none."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], within)[0], "it says nothing"
        line = self._process.stdout.readline()
        assert line, self.complaint().decode()
        return json.loads(line)

    def go_on(self) -> None:
        """Let a deed that reads a line continue."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def status(self, within: float = 20.0) -> int:
        """Wait for its end."""
        return self._process.wait(within)

    def complaint(self) -> bytes:
        """Give what it wrote to its standard error."""
        return self._process.communicate()[1]

    def close(self) -> None:
        """End it, give back what it held, and check that nothing is left."""
        self.confinement.kill(self.pid)
        self._process.kill()
        self._process.communicate()
        self.confinement.close()
        self.confinement.close()
        self.folder.rmdir()


@pytest.fixture
def means() -> Means:
    return probe()


@pytest.fixture
def host_folder() -> Iterator[Path]:
    folder = make_own_folder()
    mounts = Path("/proc/self/mountinfo").read_text()
    yield folder
    folder.rmdir()
    assert Path("/proc/self/mountinfo").read_text() == mounts
    for place in probe().places.values():
        assert not (place.path / own_name()).exists()


@pytest.fixture
def sandbox(means: Means, host_folder: Path) -> Iterator[Callable[..., Sandbox]]:
    made: list[Sandbox] = []

    def start(
        deed: str, *, held: Means = means, memory: int = 64, tmp: int = 16, opt: Path | None = None, **changes: Any
    ) -> Sandbox:
        folder = host_folder / str(len(made))
        folder.mkdir()
        confinement = Confinement.prepare(
            held, Level.LIMITS, memory_mb=memory, ephemeral_mb=tmp, folder=folder, opt=opt, visible=[Path(CHILD)]
        )
        confinement.orders |= changes
        made.append(Sandbox(confinement, folder, deed))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def groups(means: Means) -> Means:
    if set(means.places) != {"memory", "pids"}:
        pytest.skip(f"no control groups can be made here: {dict(means.why)}")
    return means


@pytest.fixture
def mounts(means: Means) -> Means:
    if means.tmp != "tmpfs" or means.opt != "mount":
        pytest.skip(f"nothing can be mounted here: {dict(means.why)}")
    return means


def without_groups(means: Means) -> Means:
    """Take the control groups from a machine that has them."""
    return replace(means, memory="rlimit", pids="none", places={})


def gone(pid: int, within: float = 5.0) -> bool:
    """Wait until a process is not there, or is dead and nobody has asked after it."""
    until = time.monotonic() + within
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.005)


LEAK = "kept = []\nwhile True: kept.append(bytearray(1 << 20))"


def test_a_function_that_leaks_memory_is_killed_by_the_kernel(groups: Means, sandbox: Callable[..., Sandbox]) -> None:
    leaking = sandbox(LEAK, memory=64, tmp=16)
    assert leaking.status() == -signal.SIGKILL
    assert leaking.confinement.memory_mb(leaking.pid) == 64


def test_a_result_of_five_gigabytes_kills_only_its_function(groups: Means, sandbox: Callable[..., Sandbox]) -> None:
    beside = sandbox("input(); say(alive=True)")
    writing = sandbox("say(result='x' * (5 << 30))")
    assert writing.status() == -signal.SIGKILL
    beside.go_on()
    assert beside.said() == {"alive": True}


def test_memory_over_the_limit_is_told_before_what_tmp_may_hold_is_used_up(
    mounts: Means, sandbox: Callable[..., Sandbox]
) -> None:
    full = sandbox("kept = bytearray(40 << 20); say(); input(); more = bytearray(60 << 20); say(); input()", tmp=500)
    full.said()
    assert full.confinement.watched
    assert not full.confinement.over(full.pid)
    full.go_on()
    full.said()
    assert full.confinement.over(full.pid)


def test_what_lies_in_tmp_is_not_memory_of_the_function(mounts: Means, sandbox: Callable[..., Sandbox]) -> None:
    writing = sandbox(
        "file = open('/tmp/big', 'wb')\nfor _ in range(80): file.write(bytes(1 << 20))\nsay(); input()",
        memory=48,
        tmp=100,
    )
    writing.said()
    assert not writing.confinement.over(writing.pid)
    assert writing.confinement.memory_mb(writing.pid) < 48


def test_the_most_memory_used_is_measured_and_stays_when_it_is_given_back(sandbox: Callable[..., Sandbox]) -> None:
    breathing = sandbox("kept = bytearray(30 << 20); say(); input(); del kept; say(); input()", memory=128)
    breathing.said()
    most = breathing.confinement.memory_mb(breathing.pid)
    assert 30 <= most < 64
    breathing.go_on()
    breathing.said()
    assert most <= breathing.confinement.memory_mb(breathing.pid) < 64


def test_the_watch_sees_what_descendants_use_where_there_is_no_group(
    means: Means, sandbox: Callable[..., Sandbox]
) -> None:
    parent = sandbox(
        "if os.fork() == 0:\n    kept = bytearray(80 << 20)\n    say()\n    import signal; signal.pause()\n"
        "else:\n    import signal; signal.pause()",
        held=without_groups(means),
    )
    parent.said()
    assert parent.confinement.watched
    assert parent.confinement.over(parent.pid)


def test_who_is_killed_by_what_they_see_are_not_those_who_came_after_the_last_of_them(
    mounts: Means, sandbox: Callable[..., Sandbox]
) -> None:
    held, deed = without_groups(mounts), "say(); input(); say(alive=True); input()"
    first = sandbox(deed, held=held)
    first.said()
    assert not first.confinement.over(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.status()
    others = [sandbox(deed, held=held) for _ in range(3)]  # the kernel numbers namespaces as it does files
    for other in others:
        other.said()
    first.confinement.kill(first.pid)
    for other in others:
        other.go_on()
        assert other.said() == {"alive": True}


def test_rlimit_data_is_the_backstop_where_there_is_no_group(means: Means, sandbox: Callable[..., Sandbox]) -> None:
    leaking = sandbox(
        f"try:\n    exec({LEAK!r})\nexcept MemoryError:\n    del kept[:]\n    say(stopped=True)",
        held=without_groups(means),
    )
    assert leaking.said() == {"stopped": True}


BOMB = """
import signal
first = os.getpid()
while True:
    try:
        os.fork()
    except OSError:
        if os.getpid() == first:
            say(full=True)
        signal.pause()
"""


def test_a_fork_bomb_ends_at_1024_processes_and_all_of_them_are_killed(
    groups: Means, sandbox: Callable[..., Sandbox]
) -> None:
    bomb = sandbox(BOMB, memory=2048)
    bomb.said()
    members = [Path(entrance) for entrance in bomb.confinement.orders["groups"]]
    inside = {pid for entrance in members for pid in entrance.read_text().split()}
    assert 900 < len(inside) <= 1024
    assert bomb.confinement.kill()
    assert all(gone(int(pid)) for pid in inside)
    assert bomb.status() == -signal.SIGKILL


CHURN = """
for _ in range(20):
    if os.fork() == 0:
        while True:
            if os.fork():
                os._exit(0)
say(churning=True)
input()
"""


def test_processes_that_are_another_at_each_look_are_killed(groups: Means, sandbox: Callable[..., Sandbox]) -> None:
    churning = sandbox(CHURN, memory=512)
    churning.said()
    churning.confinement.close()
    assert churning.status() == -signal.SIGKILL


def test_ten_thousand_threads_end_at_1024(groups: Means, sandbox: Callable[..., Sandbox]) -> None:
    starting = sandbox(
        "import threading\nstop = threading.Event()\nn = 0\n"
        "try:\n    while True:\n        threading.Thread(target=stop.wait, daemon=True).start(); n += 1\n"
        "except RuntimeError:\n    say(threads=n)",
        memory=512,
    )
    assert 1000 < starting.said()["threads"] < 1024


DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        say(pid=os.getpid())
        import signal
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
"""


def test_a_daemon_that_outlives_its_function_is_killed_with_the_sandbox(
    groups: Means, sandbox: Callable[..., Sandbox]
) -> None:
    function = sandbox(DAEMON)
    daemon = function.said()["pid"]
    assert function.status() == 0
    assert not gone(daemon, within=0.05)
    function.confinement.close()
    assert gone(daemon, within=0)


def test_a_daemon_is_found_by_its_mounts_where_there_is_no_group(
    mounts: Means, sandbox: Callable[..., Sandbox]
) -> None:
    function = sandbox("say(); input()\n" + DAEMON, held=without_groups(mounts))
    function.said()
    assert function.confinement.memory_mb(function.pid) > 0  # whoever measures has learnt how to find it
    function.go_on()
    daemon = function.said()["pid"]
    assert function.status() == 0
    assert function.confinement.kill()
    assert gone(daemon)


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


def test_a_full_tmp_is_an_error_in_the_function_and_nowhere_else(
    mounts: Means, sandbox: Callable[..., Sandbox]
) -> None:
    filling = sandbox(FILL, memory=64, tmp=100)
    assert filling.said() == {"error": "ENOSPC", "size": 100 * MEGABYTE}
    beside = sandbox("open('/tmp/mine', 'w').write('x'); say(names=os.listdir('/tmp'))")
    assert "full" not in (names := beside.said()["names"])
    assert "mine" in names
    assert not Path("/tmp/full").exists()
    filling.go_on()
    assert filling.status() == 0


def test_a_function_finds_nothing_of_the_machine_in_its_tmp(mounts: Means, sandbox: Callable[..., Sandbox]) -> None:
    marker = make_own_folder(Path("/tmp"))
    try:
        looking = sandbox(f"say(there=os.path.exists({str(marker)!r}))")
        assert looking.said() == {"there": False}
    finally:
        marker.rmdir()


def test_without_mounts_tmpdir_names_a_folder_that_is_removed_whatever_is_in_it(
    means: Means, sandbox: Callable[..., Sandbox]
) -> None:
    writing = sandbox(
        "import tempfile; folder = tempfile.mkdtemp(); open(folder + '/x', 'w').close()\n"
        "os.mkdir(folder + '/y'); os.chmod(folder + '/y', 0); os.chmod(folder, 0); say(folder=folder)",
        held=replace(means, tmp="folder"),
    )
    folder = Path(writing.said()["folder"])
    assert folder.parent == writing.folder / "tmp"
    assert writing.status() == 0
    writing.confinement.close()
    assert not folder.parent.exists()


def test_a_hundred_thousand_files_end_at_1024(sandbox: Callable[..., Sandbox]) -> None:
    opening = sandbox(
        "import errno\nopened = []\n"
        "try:\n    for _ in range(100_000): opened.append(os.open('/dev/null', 0))\n"
        "except OSError as error:\n    say(error=errno.errorcode[error.errno], last=opened[-1])\n",
    )
    assert opening.said() == {"error": "EMFILE", "last": 1023}


def test_layers_are_seen_on_opt_and_cannot_be_written(
    mounts: Means, sandbox: Callable[..., Sandbox], tmp_path: Path
) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "mine.py").write_text("answer = 42")
    before = sorted(os.listdir("/opt"))
    function = sandbox(
        "import errno\nsys.path.insert(0, '/opt/python')\nimport mine\n"
        "try:\n    open('/opt/python/other', 'w')\n"
        "except OSError as error: failed = errno.errorcode[error.errno]\n"
        "say(answer=mine.answer, names=os.listdir('/opt'), error=failed)",
        opt=tmp_path,
    )
    assert function.said() == {"answer": 42, "names": ["python"], "error": "EROFS"}
    assert sorted(os.listdir("/opt")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["python"]


def test_what_a_function_needs_of_the_machines_opt_stays_beside_its_layers(
    mounts: Means, sandbox: Callable[..., Sandbox], tmp_path: Path
) -> None:
    there = sorted(entry for entry in Path("/opt").iterdir() if entry.is_dir())
    if not there:
        pytest.skip("the /opt of this machine is empty")
    (tmp_path / "python").mkdir()
    (tmp_path / "link").symlink_to("python")
    namespace = {"user": mounts.as_user, "opt": str(tmp_path), "visible": [str(there[0])]}
    function = sandbox(
        "say(names=sorted(os.listdir('/opt')))\nimport errno\ntry: os.mkdir('/opt/x')\n"
        "except OSError as error: say(error=errno.errorcode[error.errno])",
        namespace=namespace,
    )
    assert function.said() == {"names": sorted(["link", "python", there[0].name])}
    assert function.said() == {"error": "EROFS"}


INHERITED = """
import resource, signal
say(
    open=sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    umask=os.umask(0),
    leader=os.getsid(0) == os.getpid(),
    core=resource.getrlimit(resource.RLIMIT_CORE),
    ignored=[n for n in signal.valid_signals() if signal.getsignal(n) == signal.SIG_IGN],
    blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
)
"""


def test_a_function_inherits_nothing_that_it_should_not(sandbox: Callable[..., Sandbox]) -> None:
    left_open = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(left_open, True)
    umask, handler = os.umask(0o077), signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        function = sandbox(INHERITED)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGUSR2, handler)
        os.umask(umask)
        os.close(left_open)
    assert function.said() == {
        "open": [0, 1, 2],
        "umask": 0o022,
        "leader": True,
        "core": [0, 0],
        "ignored": [signal.SIGPIPE, signal.SIGXFSZ],  # as in every Python
        "blocked": 0,
    }


def test_what_a_function_needs_below_tmp_stays_there_by_every_name(
    mounts: Means, sandbox: Callable[..., Sandbox]
) -> None:
    folder = make_own_folder(Path("/tmp"))
    code, link = folder / "a" / "code", folder / "link"
    code.mkdir(parents=True)
    (code / "file").write_text("code")
    link.symlink_to("a")
    namespace = {"user": mounts.as_user, "tmp_mb": 1, "visible": [CHILD, str(link / "code")]}
    try:
        function = sandbox(
            f"say(code=open({str(code / 'file')!r}).read(), link=open({str(link / 'code' / 'file')!r}).read(),"
            f" beside=os.listdir({str(folder)!r}))",
            namespace=namespace,
        )
        said = function.said()
        assert (said["code"], said["link"], sorted(said["beside"])) == ("code", "code", ["a", "link"])
        assert function.status() == 0
    finally:
        remove_tree(folder)


def test_a_function_dies_with_its_parent(means: Means, host_folder: Path) -> None:
    orders = {"namespace": {"tmp_mb": 1, "user": means.as_user, "visible": [CHILD]}} if means.tmp == "tmpfs" else {}
    function = [sys.executable, "-I", "-c", BEGIN, CHILD, json.dumps(orders), "say(pid=os.getpid()); input()"]
    parent = subprocess.Popen(
        [sys.executable, "-I", "-c", f"import signal, subprocess; subprocess.Popen({function!r}); signal.pause()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = json.loads(parent.stdout.readline())["pid"]
    parent.kill()
    parent.wait()
    assert gone(pid)
    parent.communicate()


def test_a_host_that_was_killed_leaves_nothing_to_the_next_one(groups: Means, tmp_path: Path) -> None:
    script = """
import json, subprocess, sys
from pathlib import Path
from serverfull.runtimes.process.confinement import Confinement
from serverfull.runtimes.process.means import Level, probe
from serverfull.runtimes.sandboxes.leftovers import make_own_folder
folder = make_own_folder(Path(sys.argv[1])) / "1"
folder.mkdir()
made = Confinement.prepare(probe(), Level.LIMITS, memory_mb=64, ephemeral_mb=8, folder=folder, opt=None)
function = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
for group in made.orders["groups"]:
    Path(group).write_text(str(function.pid))
(folder / "file").touch()
print(json.dumps({"pid": function.pid, "groups": made.orders["groups"]}), flush=True)
input()
"""
    host = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}
    )
    assert host.stdout is not None
    left = json.loads(host.stdout.readline())
    sweep(groups, tmp_path)
    assert all(Path(group).exists() for group in left["groups"])  # it lives
    host.kill()
    host.communicate()
    sweep(groups, tmp_path)  # any host that starts does so, and one of another suite may have been faster
    assert gone(left["pid"])
    assert not any(Path(group).parent.parent.exists() for group in left["groups"])
    assert list(tmp_path.iterdir()) == []


def test_a_group_that_cannot_be_made_is_refused_and_leaves_nothing(
    groups: Means, host_folder: Path, tmp_path: Path
) -> None:
    broken = replace(groups, places={**groups.places, "pids": Place(1, tmp_path / "nowhere")})
    with pytest.raises(GroupRefused, match="nowhere"):
        Confinement.prepare(broken, Level.LIMITS, memory_mb=64, ephemeral_mb=8, folder=host_folder, opt=None)


def test_a_function_whose_orders_cannot_be_carried_out_does_not_start(sandbox: Callable[..., Sandbox]) -> None:
    function = sandbox("say(started=True)", groups=["/sys/fs/cgroup/nothing/cgroup.procs"])
    assert function.status() == 1
    assert b"/sys/fs/cgroup/nothing/cgroup.procs: No such file" in function.complaint()


def test_a_function_does_not_interrupt_the_host_each_time_that_it_is_given_work(
    sandbox: Callable[..., Sandbox],
) -> None:
    function = sandbox("import os; say(policy=os.sched_getscheduler(0))")
    assert function.said()["policy"] == os.SCHED_BATCH


def test_the_level_none_holds_nothing_and_what_is_no_level_is_refused_by_name(means: Means, host_folder: Path) -> None:
    free = Confinement.prepare(means, Level.of("none"), memory_mb=64, ephemeral_mb=8, folder=host_folder, opt=None)
    assert (free.orders, free.environment, free.watched, free.kill()) == ({}, {}, False, False)
    free.close()
    with pytest.raises(ConfigurationError, match="no sandbox level 'open'; there are 'none' and 'limits' and 'strict'"):
        Level.of("open")


def test_what_is_not_the_best_says_why(means: Means) -> None:
    best = {"memory": {"cgroup2", "cgroup1"}, "pids": {"cgroup2", "cgroup1"}, "tmp": {"tmpfs"}, "opt": {"mount"}}
    for what, good in best.items():
        assert (getattr(means, what) in good) != bool(means.why.get(what)), what
    assert str(means).startswith(f"memory {means.memory}, processes {means.pids}, ")


def test_many_sandboxes_come_and_go_at_the_same_time(groups: Means, host_folder: Path) -> None:
    """The last one takes the host's directory with it, while others are being made."""

    def come_and_go(number: int) -> None:
        folder = host_folder / str(number)
        folder.mkdir()
        for _ in range(30):
            made = Confinement.prepare(groups, Level.LIMITS, memory_mb=64, ephemeral_mb=8, folder=folder, opt=None)
            assert all(Path(group).exists() for group in made.orders["groups"])
            made.close()
        folder.rmdir()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(come_and_go, range(4)))


def test_what_runs_in_the_child_can_be_read_by_python_38() -> None:
    source = Path(CHILD, "confine.py").read_text()
    ast.parse(source, feature_version=(3, 8))
