"""What a function must not reach, put out for it: files, sockets, ports, memory and a process of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

SECRET = b"secret of the host"
"""What is in all of them."""

_VICTIM = """
import ctypes, signal, sys
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
held = ctypes.create_string_buffer(b"secret of the host")
print(ctypes.addressof(held), flush=True)
sys.stdin.read()
"""

_IPC_CREATE, _IPC_REMOVE = 0o1000, 0
_SET_VALUE = 16

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def baits() -> Iterator[dict[str, Any]]:
    """Put them out while this lasts, and give what the event of the function is to have as ``bait``."""
    with ExitStack() as stack:
        bait: dict[str, Any] = {"host": os.getpid()}
        bait.update(_files(stack))
        bait.update(_services(stack, Path(bait["secret"]).parent, Path(bait["tmp"]).parent))
        bait.update(_memory(stack))
        bait.update(_victim(stack))
        yield bait


def _files(stack: ExitStack) -> dict[str, Any]:
    """Put files where neither a sandbox's own /tmp covers them, nor anybody but this user may read them."""
    kept = _folder(stack, Path("/var/tmp"))
    temporary = _folder(stack, Path(tempfile.gettempdir()))
    shared = _folder(stack, Path("/dev/shm")) if Path("/dev/shm").is_dir() else temporary
    (kept / "packages").mkdir()
    files = {
        "code": kept / "packages" / "other.py",
        "state": kept / "state.db",
        "secret": kept / "credentials",
        "home": _folder(stack, Path.home()) / "file",
        "tmp": temporary / "file",
        "shm": shared / "file",
    }
    for path in files.values():
        path.write_bytes(SECRET)
        path.chmod(0o600)
    return {name: str(path) for name, path in files.items()} | {"packages": str(kept / "packages")}


def _folder(stack: ExitStack, parent: Path) -> Path:
    made = Path(tempfile.mkdtemp(prefix="serverfull-bait-", dir=parent))
    stack.callback(shutil.rmtree, made, ignore_errors=True)
    return made


def _services(stack: ExitStack, kept: Path, temporary: Path) -> dict[str, Any]:
    tcp, api = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    unix, in_tmp, abstract = (socket.socket(socket.AF_UNIX) for _ in range(3))
    name = f"serverfull-bait-{os.getpid()}-{id(stack)}"
    for listener, address in (
        (unix, str(kept / "socket")),
        (in_tmp, str(temporary / "socket")),
        (abstract, f"\0{name}"),
    ):
        listener.bind(address)
        listener.listen(8)
    for listener in (tcp, api, unix, in_tmp, abstract):
        _serve(stack, listener, _tell)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    _serve(stack, udp, _echo)
    tcp6 = _other_address(stack)
    return {
        "tcp6": tcp6,
        "tcp": tcp.getsockname()[1],
        "api": api.getsockname()[1],
        "udp": udp.getsockname()[1],
        "unix": str(kept / "socket"),
        "unix_in_tmp": str(temporary / "socket"),
        "abstract": name,
    }


def _other_address(stack: ExitStack) -> int:
    """Listen on ::1 too; 0 where the machine has no such address."""
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        return 0
    _serve(stack, listener, _tell)
    return int(listener.getsockname()[1])


def _serve(stack: ExitStack, listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    """Answer whoever comes to a socket, on a thread that ends with the baits."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                answer(listener)

    thread = threading.Thread(target=run, name="serverfull-bait", daemon=True)
    listener.settimeout(0.1)
    thread.start()
    stack.callback(listener.close)
    stack.callback(thread.join)
    stack.callback(ended.set)


def _tell(listener: socket.socket) -> None:
    line, _ = listener.accept()
    with line:
        line.settimeout(1)
        line.sendall(SECRET)
        line.recv(1)  # until it goes


def _echo(line: socket.socket) -> None:
    _, address = line.recvfrom(100)
    line.sendto(SECRET, address)


def _memory(stack: ExitStack) -> dict[str, Any]:
    """Make what System V and POSIX share, where the machine has them, and a terminal; all hold what is secret."""
    name = f"/serverfull-bait-{os.getpid()}"
    made = _libc.shmget(0, 4096, _IPC_CREATE | 0o600)
    if made >= 0:
        stack.callback(_libc.shmctl, made, _IPC_REMOVE, None)
        _libc.shmat.restype = ctypes.c_void_p
        place = _libc.shmat(made, None, 0)
        ctypes.memmove(place, SECRET, len(SECRET))
        _libc.shmdt(ctypes.c_void_p(place))
    queue = _libc.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
    if queue >= 0:
        stack.callback(_libc.mq_unlink, name.encode())
        stack.callback(os.close, queue)
    messages = _libc.msgget(0, _IPC_CREATE | 0o600)
    if messages >= 0:
        stack.callback(_libc.msgctl, messages, _IPC_REMOVE, None)
        _libc.msgsnd(messages, struct.pack("l", 1) + SECRET, len(SECRET), 0)
    semaphore = _libc.semget(0, 1, _IPC_CREATE | 0o600)
    if semaphore >= 0:
        stack.callback(_libc.semctl, semaphore, 0, _IPC_REMOVE)
        _libc.semctl(semaphore, 0, _SET_VALUE, 7)
    leader, follower = os.openpty()
    stack.callback(os.close, leader)
    stack.callback(os.close, follower)
    return {
        "shmid": made,
        "queue": name,
        "msgid": messages,
        "semid": semaphore,
        "terminal": os.ttyname(follower),
    }


def _victim(stack: ExitStack) -> dict[str, Any]:
    """Start a process of the host's user that holds a secret in its memory."""
    process = stack.enter_context(
        subprocess.Popen([sys.executable, "-c", _VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.kill)
    return {"victim": process.pid, "address": int(process.stdout.readline())}
