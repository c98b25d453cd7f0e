"""A Docker engine for the tests: the machine's own, or one that is started for them and leaves nothing behind.

Several test runs may go on at the same time on one machine, each with an engine of its own. What engines could take
from each other is decided by one number, which a run holds as long as it lives: the name of its bridge, its addresses,
its control group. The engine changes no packet filter and no forwarding; its mounts are in a namespace of its own and
end with it. `integration/conftest.py` gives tests a `TestEngine`, with the image that they run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import docker

from integration import base_image

MACHINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
"""Read before the tests clean their variables."""

STARTED_WITHIN = 60.0
ENDED_WITHIN = 30.0


INSTALL = "apt-get install docker.io iproute2 debootstrap, and be root; or let DOCKER_HOST name an engine"


class EngineUnfit(Exception):
    """The machine does not let an engine run, or run containers; says the engine's last lines."""


def machine_engine():
    """The address of the machine's own engine, or None where none answers."""
    try:
        with reached(MACHINE):
            pass
        with contextlib.closing(docker.DockerClient(base_url=MACHINE, timeout=5)) as client:
            client.ping()
    except (docker.errors.DockerException, OSError):
        return None
    return MACHINE


def reached(url):
    """A connection to an engine; OSError where nobody listens, where Docker's client would leak one."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return socket.create_connection((parts.hostname, parts.port or 2375), timeout=5)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(parts.path)
    except OSError:
        connection.close()
        raise
    return connection


@dataclass(frozen=True)
class TestEngine:
    """An engine that runs containers.

    :param url: for DOCKER_HOST.
    :param image: an image of AWS's layout with Python 3.11 and AWS's runtime client, see `base_image`.
    :param own: the daemon, where it belongs to the tests and may be stopped; None for the machine's.
    """

    __test__ = False

    url: str
    image: str
    own: OwnEngine | None = None

    def client(self):
        """A client of Docker's own, closed with its context."""
        return client_of(self.url)

    def gateway(self):
        """The address of this machine for containers that are in no other network than ``bridge``."""
        with self.client() as client:
            return client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]


def client_of(url):
    return contextlib.closing(docker.DockerClient(base_url=url, timeout=60))


@contextlib.contextmanager
def with_image(url, own=None):
    """Bring the image to an engine and see it run there; an engine that is our own goes with its images.

    Raises EngineUnfit where one of our own cannot run containers.
    """
    name = f"serverfull-test-{os.getpid()}/python:{base_image.PYTHON}"
    with client_of(url) as client:
        client.api.timeout = 300
        client.api.import_image_from_file(
            str(base_image.packed_files()), *name.split(":"), changes=list(base_image.CHANGES)
        )
        try:
            try:
                client.containers.run(name, entrypoint=["/usr/bin/python3", "-c", "import awslambdaric"], remove=True)
            except docker.errors.DockerException as error:
                if own is None:
                    raise
                raise EngineUnfit(f"dockerd runs no container here: {error}\n{''.join(own.lines)}") from None
            yield TestEngine(url, name, own)
        finally:
            if own is None:
                client.images.remove(name, force=True)


class Place:
    """What one engine has for itself on the machine: a number, and a bridge and networks made from it."""

    NUMBERS = range(32)

    def __init__(self):
        for number in self.NUMBERS:
            lock = socket.socket(socket.AF_UNIX)
            try:
                # Gone with the process that holds it, however that ends.
                lock.bind(f"\0serverfull-test-engine-{number}")
            except OSError:
                lock.close()
                continue
            self.network = ipaddress.ip_network(f"10.{192 + number}.0.0/16")
            self.bridge = f"sfull{number}"
            # Here only where the run that had this number was killed.
            subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, check=False)
            if not any(self.network.overlaps(taken) for taken in _networks()):
                break
            lock.close()
        else:
            raise EngineUnfit("there is no network left for another engine")
        self._lock = lock
        self.cgroup = f"serverfull-test-{number}"
        self.address = str(self.network[1])
        self.pool = str(list(self.network.subnets(prefixlen_diff=1))[1])

    def take(self):
        for command in (
            ["link", "add", self.bridge, "type", "bridge"],
            ["address", "add", f"{self.address}/24", "dev", self.bridge],
            ["link", "set", self.bridge, "up"],
        ):
            done = subprocess.run(["ip", *command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise EngineUnfit(f"ip {' '.join(command)}: {done.stderr.strip()}")

    def leave(self):
        subprocess.run(["ip", "link", "delete", self.bridge], capture_output=True, check=False)
        for controller in {Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()}:
            groups = sorted((controller / self.cgroup).glob("**/"), reverse=True)
            for group in groups:
                with contextlib.suppress(OSError):
                    group.rmdir()
        self._lock.close()


def _networks():
    """What the machine has routes to; a default route is none."""
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], check=True, capture_output=True).stdout or "[]")
    return [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]


class OwnEngine:
    """A dockerd of the tests', for as long as the context lasts.

    ``stop``, ``start`` and ``pause`` are for tests of what a host does while its engine is away.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sfull-engine-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self.lines = deque(maxlen=20)
        self.process = None
        self._key = Path("/etc/docker/key.json")
        self._had = self._key.exists(), self._key.parent.exists()
        self._place = None

    def __enter__(self):
        try:
            self._place = Place()
            self._place.take()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc):
        self.close()

    def start(self):
        """Start the daemon, also again after `stop`; raises EngineUnfit where it does not come up."""
        (self.folder / "daemon.json").write_text("{}")
        options = {
            "config-file": self.folder / "daemon.json",
            "data-root": self.folder / "data",
            "exec-root": self.folder / "exec",
            "pidfile": self.folder / "dockerd.pid",
            "host": self.url,
            "bridge": self._place.bridge,
            "default-address-pool": f"base={self._place.pool},size=24",
            "cgroup-parent": f"/{self._place.cgroup}",
            "exec-opt": "native.cgroupdriver=cgroupfs",
            # Containers reach the host by its address on their bridge, and nothing beyond.
            "iptables": "false",
            "ip6tables": "false",
            "ip-forward": "false",
            "ip-masq": "false",
            "shutdown-timeout": "5",
        }
        command = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
        # Ends with the thread that started it, even if that is killed.
        guarded = ["setpriv", "--pdeathsig=TERM", "unshare", "--mount", "--propagation=slave", *command]
        self.process = subprocess.Popen(guarded, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        listening = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(self.process.stderr, listening), daemon=True).start()
        try:
            came_up = listening.get(timeout=STARTED_WITHIN)
        except queue.Empty:
            came_up = False
        if not came_up:
            self.stop()
            raise EngineUnfit("dockerd did not start here; its last lines:\n" + "".join(self.lines))

    def _read(self, stream, listening):
        with stream:
            for line in stream:
                self.lines.append(line)
                if "API listen on" in line:
                    listening.put(True)
        listening.put(False)

    def stop(self):
        """End the daemon, and its containers with it."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(ENDED_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
        deadline = time.monotonic() + ENDED_WITHIN
        while (left := self._leftovers()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    @contextlib.contextmanager
    def paused(self):
        """The daemon takes connections and answers nothing, as one that hangs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _leftovers(self):
        """What may outlive a daemon: containerd and its shims, who name the folder, and its control group."""
        left = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                program, _, arguments = (path / "cmdline").read_text(errors="replace").partition("\0")
                of_ours = "containerd" in program and str(self.folder) in arguments
                if of_ours or f"/{self._place.cgroup}/" in (path / "cgroup").read_text():
                    left.append(int(path.name))
        return left

    def close(self):
        bridges = []
        if self.process is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError), client_of(self.url) as client:
                for container in client.containers.list(all=True, ignore_removed=True):
                    with contextlib.suppress(docker.errors.APIError):
                        container.remove(force=True)
                bridges = [f"br-{network.id[:12]}" for network in client.networks.list() if network.name != "bridge"]
            self.stop()
        for bridge in bridges:
            subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
        if self._place is not None:
            self._place.leave()
        had_key, had_folder = self._had
        if not had_key:
            self._key.unlink(missing_ok=True)
        if not had_folder:
            with contextlib.suppress(OSError):
                self._key.parent.rmdir()
        shutil.rmtree(self.folder)
