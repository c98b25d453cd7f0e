"""The system calls that containers may make: a seccomp profile for the engine, narrower than its own.

It allows what the engine's default allows to containers without capabilities, and of that not what has let code out
before and no function needs: io_uring; sockets but those of the machine, of IP, and the one that tells of routes; the
table of segments; and all calls by the numbers of another architecture, such as those of 32 bits, for which a process
is killed. What the names below do not know, because the kernel is newer, is refused.

Engine: https://docs.docker.com/engine/security/seccomp/
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Sequence
from typing import Any

from serverfull.domain.json_functions import dumps

_ALLOWED = """
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime
clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr file_getattr
file_setattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait
futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid
getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl
ioprio_get ioprio_set kcmp kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link
linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create
mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease
process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir
rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area
set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid
setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo
tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid
write writev
"""
"""Whatever their arguments."""

_NAMESPACES = 0x7E020000
"""All flags of clone(2) that make a namespace."""

_PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_ROUTES = 0

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_ALLOW, _REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"


def security_options(machine: str) -> Sequence[str]:
    """Give the security options of containers; where there is no profile, the engine's own counts.

    :param machine: as `platform.machine` gives it.
    """
    options = ["no-new-privileges"]
    if machine in _ARCHITECTURES:
        options.append(f"seccomp={dumps(_profile(_ARCHITECTURES[machine]))}")
    return options


def _profile(architecture: str) -> dict[str, Any]:
    return {
        "defaultAction": _REFUSE,
        "architectures": [architecture],
        "syscalls": [
            _rule(_ALLOWED.split()),
            _rule(["clone"], _argument(0, _NAMESPACES, "SCMP_CMP_MASKED_EQ")),  # none of them is set
            # Its flags are in memory, where no filter looks; libraries then take clone.
            _rule(["clone3"], action=_REFUSE) | {"errnoRet": errno.ENOSYS},
            *(_rule(["personality"], _argument(0, value)) for value in _PERSONALITIES),
            *(_rule(["socket"], _argument(0, family)) for family in (_UNIX, _INET, _INET6)),
            _rule(["socket"], _argument(0, _NETLINK), _argument(2, _ROUTES)),
        ],
    }


def _rule(names: Sequence[str], *arguments: dict[str, Any], action: str = _ALLOW) -> dict[str, Any]:
    return {"names": [*names], "action": action, "args": [*arguments]}


def _argument(index: int, value: int, comparison: str = "SCMP_CMP_EQ") -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": 0, "op": comparison}


HERE = security_options(platform.machine())
"""Those for this machine, whose engine it is."""
