"""The seccomp profile of containers, beside the filter of processes behind walls."""

from __future__ import annotations

import json

import pytest

from serverfull.runtimes.child import seccomp
from serverfull.runtimes.docker import syscalls

TRACING = {"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"}
READING_TOO = {"adjtimex", "clock_adjtime", "name_to_handle_at"}
"""What the engine's own profile allows as well: a container sees its own processes alone, and has no capability."""


def rules(machine: str) -> dict[str, list[dict[str, object]]]:
    profile = json.loads(syscalls.security_options(machine)[1].removeprefix("seccomp="))
    found: dict[str, list[dict[str, object]]] = {}
    for rule in profile["syscalls"]:
        for name in rule["names"]:
            found.setdefault(name, []).append(rule)
    return found


@pytest.mark.parametrize(("machine", "table"), [("x86_64", seccomp._X86_64), ("aarch64", seccomp._AARCH64)])
def test_what_processes_behind_walls_may_not_call_containers_may_not_either(
    machine: str, table: dict[str, int]
) -> None:
    allowed = {
        name for name, found in rules(machine).items() if any(rule["action"] == "SCMP_ACT_ALLOW" for rule in found)
    }
    assert allowed & (table.keys() | seccomp._EVERYWHERE.keys()) == TRACING | READING_TOO
    unconditional = {name for name, found in rules(machine).items() if not all(rule["args"] for rule in found)}
    assert seccomp._SPECIAL[machine].keys() - unconditional == {"clone", "personality", "socket"}


def test_a_machine_without_a_profile_has_the_engines_own() -> None:
    assert syscalls.security_options("riscv64") == ["no-new-privileges"]
