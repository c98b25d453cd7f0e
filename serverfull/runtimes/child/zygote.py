"""The zygote: a small process with a warm interpreter that forks others and tells the host what becomes of them.

It runs one thread and no code of users. What it is asked comes as JSON over a socket, a launch with the descriptors of
its order and of the log pipe beside it::

    {"spare": 7, "groups": [...], "strict": false}
    {"launch": 7, "snapshot": false, "walls": null}
    {"launch": 8, "snapshot": false, "walls": {"join": 4711}}
    {"launch": 9, "snapshot": false, "walls": null, "from": 7, "socket": "..."}
    {"kill": 7}
    {"reach": 4711}

and it answers ``{"launched": 7, "pid": 4711}`` or ``{"failed": 7, "why": "..."}``, ``{"killed": 7}``, and once that
process has ended ``{"exited": 7, "status": 9, "maxrss_kb": 10240}``. A failed launch whose program cannot be executed
is ``unexecutable``; in all others something is wrong here.

The order is read by the new process alone: variables and paths of one function would else be left in the memory that
the processes of others begin with. It is JSON with ``environment``, ``cwd``, ``limits``, and either a ``command`` or a
``client``, which has the keys ``socket``, ``handler``, ``root``, ``path`` and ``wrapper``.

A client that is told to be a ``snapshot`` waits, once it has loaded its function, for launches ``from`` it: processes
that it forks, and that are the zygote's then as all others. Such a process says over the snapshot's socket which launch
it is, and the kernel says which process says so; it must carry the mark of the snapshot, by which it is one's own.

A spare is a process that is forked before it is known what for, and has entered its groups. The launch of its number
takes it, and any other process where it is not there any more. Nothing is said of spares.

What is launched with ``walls``, and a strict spare, begins in namespaces of its own (`apart`), or in
those of a process that it is to ``join``. Their init is the zygote's child too, and is killed when the last of what was
launched into them has ended. ``reach`` has a socket sent that is in the network of such a process, over the descriptor
that comes with it.

All that a launch leaves behind becomes the zygote's, since it adopts orphans, and is killed when the launched process
has ended. Where the host ends, the zygote kills everything and ends as well.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from . import apart, births, client, confine, prctl
from .copies import Original

_LONGEST_END = 5.0
"""Seconds after which the zygote ends although something that it has killed is still there."""

_UNEXECUTABLE = b"\0"
"""What a child's last words begin with where its program cannot be executed, and the rest of the launch was well."""

_AT_ONCE = 256
"""Ended processes that are reaped in one go: who starts them without end must not keep the others waiting."""

_WARM = ("decimal", "datetime", "asyncio", "base64", "uuid", "random", "urllib.parse")
"""Modules that many functions import: loaded once, shared by all."""


def main(descriptor: int, host: int) -> None:
    """Serve the host until it ends; in every forked child, run what that is for.

    :param descriptor: of the socket to the host.
    :param host: the host's process id.
    """
    part = _Zygote(socket.socket(fileno=descriptor), host).serve()
    if part is not None:  # a child: its exceptions end it as they end any Python program
        client.main(part.line, part.handler, part.control)


class _Launch:
    """One launched process.

    :param init: the first process of its namespaces, which ends with the last launch that is in them; 0: it has none.
    """

    def __init__(self, number: int, mark: int, pid: int, init: int, report: int) -> None:
        self.number = number
        self.mark = mark
        self.pid = pid
        self.init = init
        self.report = report
        self.failed = False
        self.unwanted = False


class _Spare:
    """A process that waits for its order.

    :param init: as a launch has it.
    :param line: the descriptor that it gets that by.
    """

    def __init__(self, pid: int, init: int, line: int, report: int) -> None:
        self.pid = pid
        self.init = init
        self.line = line
        self.report = report

    def give(self, mark: int, given: Sequence[int]) -> bool:
        """Send it what it is to be; says whether it is there to take it."""
        descriptors = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", given))]
        with socket.socket(fileno=self.line) as line:
            try:
                line.sendmsg([b"%d" % mark], descriptors)
            except OSError:
                os.close(self.report)
                return False
        return True

    def close(self) -> None:
        """Give back what it was kept by."""
        os.close(self.line)
        os.close(self.report)


class _Zygote:
    def __init__(self, host: socket.socket, host_pid: int) -> None:
        self._host = host
        self._host_pid = host_pid
        self._pid = os.getpid()
        self._launches: dict[int, _Launch] = {}  # by process id
        self._spares: dict[int, _Spare] = {}  # by the number of the launch that they are for
        self._unborn: dict[int, _Launch] = {}  # by number: of a snapshot that has not made them yet
        self._snapshots: dict[int, Original] = {}  # by the number of their launch
        self._marks = 0
        self._ending = False
        self._hunting = False  # something may be left of a launch that has ended
        self._poll = select.poll()
        self._wake, self._waker = os.pipe()
        self._alive, self._living = os.pipe()  # inits have the first one, and nobody else the second

    def serve(self) -> births.Part | None:
        """Do what the host asks for; gives None at the end, and in a child what it is to run."""
        self._get_ready()
        while not self._ending:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                elif descriptor == self._host.fileno():
                    part = self._hear()
                    if part is not None:
                        return part
                elif not self._hear_snapshot(descriptor):
                    self._hear_child(descriptor)
        self._end()
        return None

    def _get_ready(self) -> None:
        prctl.adopt_orphans()
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._asked_to_end)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        prctl.signal_at_death_of(self._host_pid, signal.SIGTERM)
        self._extra = _warm_up()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._host.fileno(), select.POLLIN)
        self._say({"ready": self._pid, "version": "{}.{}.{}".format(*sys.version_info[:3])})

    def _asked_to_end(self, *_: object) -> None:
        self._ending = True

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the host is gone, or going: reading says so as well
            self._host.send(json.dumps(message).encode())

    def _hear(self) -> births.Part | None:
        data, descriptors = births.receive(self._host)
        if not data:
            self._ending = True
            return None
        message = json.loads(data)
        try:
            if "launch" in message:
                if len(descriptors) > 1:
                    make = self._copy if "from" in message else self._launch
                    return make(message, descriptors)
                self._say({"failed": message["launch"], "why": "the descriptors of its order have not arrived"})
                return None
            if "spare" in message:
                return self._make_spare(message["spare"], message["groups"], is_strict=message["strict"])
            if "reach" in message:
                self._reach(message["reach"], *descriptors)
                return None
            self._kill(message["kill"])
        finally:
            for descriptor in descriptors:
                _close(descriptor)
        return None

    def _make_spare(self, number: int, groups: list[str], *, is_strict: bool) -> births.Part | None:
        descriptors: list[int] = []
        try:
            descriptors += os.pipe()
            descriptors += (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            pid, init = self._fork({} if is_strict else None)
        except OSError:  # the launch says why, if it fails too
            for descriptor in descriptors:
                _close(descriptor)
            return None
        report, child_report, line, child_line = descriptors
        if pid == 0:
            return self._wait_to_be_born(child_line, groups, child_report, None if is_strict else self._pid)
        os.close(child_report)
        os.close(child_line)
        self._spares[number] = _Spare(pid, init, line, report)
        return None

    def _fork(self, walls: Mapping[str, Any] | None) -> tuple[int, int]:
        """Fork; gives the ids of the process and of its init, which may be 0.

        In the child it gives 0, and the descriptor of the mounts that it is to see, if they are another's.

        :param walls: what the level ``strict`` asks for; None: it is another level.
        """
        if walls is None:
            return os.fork(), 0
        if not walls.get("join"):
            return apart.fork(self._alive)
        joined = self._launches.get(walls["join"])
        if joined is None or not joined.init:
            raise OSError("the process that it is to join has ended")
        pid, mounts = apart.join(joined.pid)
        return (pid, joined.init) if pid else (0, mounts)

    @staticmethod
    def _reach(pid: int, channel: int) -> None:
        """Have a socket made in the network of a process; who waits for it is told by the end of the channel else."""
        try:
            made = os.fork()
        except OSError:
            return
        if made == 0:
            with contextlib.suppress(OSError):
                apart.reach(pid, channel)
            os._exit(0)
        os.waitpid(made, 0)

    def _wait_to_be_born(self, line: int, groups: list[str], report: int, parent: int | None) -> births.Part:
        self._let_go()
        try:
            mark, given = births.wait(line, groups, report, parent)
        except BaseException:  # nothing may run on as a second zygote
            os._exit(127)
        return self._be_born(given, report, mark, in_groups=True)

    def _let_go(self) -> None:
        """Forget, in a child, sockets whose numbers may be other descriptors' soon."""
        self._host.detach()
        for snapshot in self._snapshots.values():
            snapshot.control.detach()

    def _launch(self, asked: dict[str, Any], given: Sequence[int]) -> births.Part | None:
        number = asked["launch"]
        self._marks += 1
        if not asked["snapshot"]:
            return self._start(asked, given)
        try:
            control = self._make_snapshot(number)
        except OSError as error:
            self._say({"failed": number, "why": f"cannot start a process: {error}"})
            return None
        part = self._start(asked, [*given, control])
        if part is None:  # this is the zygote still, and no child that needs it
            os.close(control)
        return part

    def _make_snapshot(self, number: int) -> int:
        """Prepare for processes that are to be made of this launch; gives the descriptor that it needs for that."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._snapshots[number] = Original(self._marks, ours)
        self._poll.register(ours, select.POLLIN)
        return theirs.detach()

    def _copy(self, asked: dict[str, Any], given: Sequence[int]) -> None:
        """Have a snapshot make a process."""
        number = asked["launch"]
        self._marks += 1
        descriptors: list[int] = []
        try:
            descriptors += os.pipe()
            with client.connect(asked["socket"]) as line:
                beside = [*given[:2], line.fileno(), descriptors[1]]
                self._snapshots[asked["from"]].order(self._marks, number, beside)
        except (OSError, KeyError) as error:
            self._say({"failed": number, "why": f"the snapshot cannot be used: {error}"})
            for descriptor in descriptors:
                _close(descriptor)
            return
        os.close(descriptors[1])
        launch = self._unborn[number] = _Launch(number, self._marks, 0, 0, descriptors[0])
        self._poll.register(launch.report, select.POLLIN)

    def _start(self, asked: dict[str, Any], given: Sequence[int]) -> births.Part | None:
        number = asked["launch"]
        spare = self._spares.pop(number, None)
        if spare is not None and spare.give(self._marks, given):
            self._expect(_Launch(number, self._marks, spare.pid, spare.init, spare.report))
            return None
        if spare is not None:
            _kill_all_of(spare.init)
        try:
            report, child_report = os.pipe()
        except OSError as error:
            self._say({"failed": number, "why": f"cannot start a process: {error}"})
            return None
        try:
            pid, init = self._fork(asked["walls"])
        except OSError as error:
            self._say({"failed": number, "why": f"cannot start a process: {error}"})
            os.close(report)
            os.close(child_report)
            return None
        if pid == 0:
            self._let_go()
            return self._be_born(given, child_report, self._marks, init)
        os.close(child_report)
        self._expect(_Launch(number, self._marks, pid, init, report))
        return None

    def _expect(self, launch: _Launch) -> None:
        self._launches[launch.pid] = launch
        self._poll.register(launch.report, select.POLLIN)

    def _be_born(
        self, given: Sequence[int], report: int, mark: int, mounts: int = -1, *, in_groups: bool = False
    ) -> births.Part:
        try:
            order = births.read(given[0], in_groups=in_groups)
            return births.begin(order, given[1:], report, mark, self._pid, self._extra, mounts)
        except BaseException as error:  # nothing may run on as a second zygote
            unexecutable = isinstance(error, births.NotExecutable)
            why = str(error) if unexecutable else f"{type(error).__name__}: {error}"
            try:
                os.write(report, (_UNEXECUTABLE if unexecutable else b"") + why.encode("utf-8", "replace")[:4000])
            finally:
                os._exit(127)

    def _hear_snapshot(self, descriptor: int) -> bool:
        """Learn what a snapshot has made, if that is one's."""
        for number, snapshot in list(self._snapshots.items()):
            if snapshot.control.fileno() == descriptor:
                self._hear_births(number, snapshot)
                return True
        return False

    def _hear_births(self, number: int, snapshot: Original, ended: int = 0) -> None:
        """Take in the processes that a snapshot has made.

        :param ended: one that has ended already, as a child of the zygote.
        """
        try:
            while (born := snapshot.hear()) is not None:
                pid, said = born
                launch = self._unborn.get(said)
                if launch is not None and (pid == ended or _mark_of(pid) in (snapshot.mark, launch.mark)):
                    del self._unborn[said]
                    launch.pid = pid
                    self._launches[pid] = launch
                    if launch.unwanted:
                        _kill_group(pid)
        except EOFError:
            self._poll.unregister(snapshot.control)
            snapshot.control.close()
            del self._snapshots[number]

    def _hear_all_births(self, ended: int = 0) -> None:
        for number, snapshot in list(self._snapshots.items()):
            self._hear_births(number, snapshot, ended)

    def _hear_child(self, report: int) -> None:
        """Learn whether a child has begun: it closes its end of the pipe, or says what has gone wrong."""
        known = (*self._launches.values(), *self._unborn.values())
        launch = next((launch for launch in known if launch.report == report), None)
        if launch is None:
            return
        why = os.read(report, 4096)
        self._forget_report(launch)
        if not launch.pid:
            self._hear_all_births()
        if not launch.pid:
            del self._unborn[launch.number]
            why = why or b"the snapshot has ended"
        if why:
            launch.failed = True
            said = {"failed": launch.number, "why": why.lstrip(_UNEXECUTABLE).decode("utf-8", "replace")}
            self._say({**said, "unexecutable": True} if why.startswith(_UNEXECUTABLE) else said)
        else:
            self._say({"launched": launch.number, "pid": launch.pid})

    def _forget_report(self, launch: _Launch) -> None:
        self._poll.unregister(launch.report)
        os.close(launch.report)
        launch.report = -1

    def _kill(self, number: int) -> None:
        for launch in self._launches.values():
            if launch.number == number:
                _kill_group(launch.pid)
                _kill_all_of(launch.init)
        if number in self._unborn:
            self._unborn[number].unwanted = True
        self._say({"killed": number})

    def _reap(self) -> None:
        """Take leave of all that have ended, and kill what they have left behind."""
        ended = []
        for _ in range(_AT_ONCE):
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid not in self._launches and self._unborn:
                self._hear_all_births(pid)
            launch = self._launches.pop(pid, None)
            if launch is not None and all(other.init != launch.init for other in self._launches.values()):
                _kill_all_of(launch.init)
            ended.append((launch, status, usage.ru_maxrss))
            self._forget_init(pid)
            self._forget_spare(pid)
        else:
            with contextlib.suppress(BlockingIOError):  # there may be more, after what the host has asked meanwhile
                os.write(self._waker, b"\0")
        if any(launch is not None for launch, _, _ in ended):
            self._hunting = True
        if ended and self._hunting:
            self._hunting = self._kill_orphans()
        for launch, status, maxrss_kb in ended:
            if launch is not None:
                self._say_exited(launch, status, maxrss_kb)

    def _forget_spare(self, pid: int) -> None:
        for number, spare in list(self._spares.items()):
            if spare.pid == pid:
                del self._spares[number]
                spare.close()
                _kill_all_of(spare.init)

    def _known(self) -> list[_Launch | _Spare]:
        return [*self._launches.values(), *self._spares.values()]

    def _forget_init(self, pid: int) -> None:
        """Take leave of an init: its number may be another process's soon."""
        for known in self._known():
            if known.init == pid:
                known.init = 0

    def _say_exited(self, launch: _Launch, status: int, maxrss_kb: int) -> None:
        if launch.report >= 0:  # it ended before anybody looked whether it began
            self._launches[launch.pid] = launch
            self._hear_child(launch.report)
            del self._launches[launch.pid]
        if not launch.failed:
            self._say({"exited": launch.number, "status": status, "maxrss_kb": maxrss_kb})

    def _kill_orphans(self) -> bool:
        """Kill adopted processes, except those that a launched process has left behind and that is still there.

        Says whether there were any: their children come here when they have ended.
        """
        alive = {launch.mark for launch in (*self._launches.values(), *self._unborn.values())}
        ours = {pid for known in self._known() for pid in (known.pid, known.init)}
        orphans = [pid for pid in _children(self._pid) if pid not in ours and _mark_of(pid) not in alive]
        for pid in orphans:
            _kill_group(pid)
        return bool(orphans)

    def _end(self) -> None:
        """Kill everything, wait until it is gone, and end."""
        self._host.close()
        until = time.monotonic() + _LONGEST_END
        while time.monotonic() < until:
            for pid in _children(self._pid):
                _kill_group(pid)
            try:
                while os.wait4(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            self._poll_wake()

    def _poll_wake(self) -> None:
        if select.select([self._wake], [], [], 0.05)[0]:
            os.read(self._wake, 4096)


def _warm_up() -> frozenset[str]:
    """Load what is shared; gives the names that an interpreter that has just started would not have loaded."""
    before = set(sys.modules)
    for name in _WARM:
        __import__(name)
    confine.ways_of_this_interpreter()
    gc.collect()
    gc.freeze()
    gc.disable()  # so that no page of the children's heap is touched here
    return frozenset(name.partition(".")[0] for name in set(sys.modules) - before) - {str(__package__)}


def _children(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended in between
                continue
            if int(fields[1]) == parent and fields[0] != b"Z":
                found.append(int(name))
    return found


def _mark_of(pid: int) -> int:
    try:
        return resource.prlimit(pid, births.MARK)[0]
    except (OSError, ValueError):
        return -1


def _kill_group(pid: int) -> None:
    """Kill a child of ours with its process group, which it may lead or not."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _kill_all_of(init: int) -> None:
    """Kill everything in a namespace of processes, by its init; 0: there is none."""
    if init:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGKILL)


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
