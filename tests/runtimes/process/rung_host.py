"""A host on a lower rung: started by test_confinement_rungs.py as a user who may do little, with the standard library.

It is given deeds as JSON, a list of objects with ``deed`` (Python) and what is to be done with the process, and prints
what it found and what came of each.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from serverfull.runtimes import child
from serverfull.runtimes.process.cgroups import make_group
from serverfull.runtimes.process.confinement import Confinement
from serverfull.runtimes.process.means import Level, probe
from serverfull.runtimes.process.places import find_place
from serverfull.runtimes.sandboxes.leftovers import make_own_folder

CHILD = next(iter(child.__path__))

BEGIN = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import confine
confine.apply(json.loads(sys.argv[2]), parent=os.getppid())
def say(**what):
    print(json.dumps(what), flush=True)
exec(sys.argv[3])
"""


def start(orders, environment, deed):
    return subprocess.Popen(
        [sys.executable, "-I", "-c", BEGIN, CHILD, json.dumps(orders), deed],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def run(means, folder, order):
    made = Confinement.prepare(
        means, Level.LIMITS, memory_mb=64, ephemeral_mb=4, folder=folder, opt=order.get("opt"), visible=[Path(CHILD)]
    )
    process = start(made.orders, made.environment, order["deed"])
    said = json.loads(process.stdout.readline() or "null")
    most = made.orders["limits"].get("NPROC")
    beside = None
    if order.get("beside"):  # another process of the same sandbox, as extensions have
        other = start(made.joining(process.pid), made.environment, order["beside"])
        beside = json.loads(other.communicate(b"\n")[0] or "null")
    result = {
        "beside": beside,
        "said": said,
        "most": most,
        "over": made.over(process.pid),
        "memory": made.memory_mb(process.pid),
    }
    if order.get("end"):
        process.communicate(b"\n")
    result["killed"] = made.kill(process.pid)
    if not result["killed"]:
        process.kill()
    result["status"] = process.wait(10)
    if said and "pid" in said:
        result["gone"] = gone(said["pid"])
    made.close()
    process.communicate()
    folder.rmdir()
    return result


def gone(pid, within=5.0):
    until = time.monotonic() + within
    while Path(f"/proc/{pid}").exists():
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            break
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def delegated(controller, deed):
    """Use a group of version 2 that was given to this user, with whatever controller there is."""
    place = find_place(controller)
    group = make_group({controller: place}, "1")
    process = start({"groups": group.entrances}, {}, deed)
    said = json.loads(process.stdout.readline())
    inside = Path(group.entrances[0]).exists() and process.pid in group.members()
    own = Path("/proc/self/cgroup").read_text()
    process.communicate(b"\n")
    left = group.members()
    group.kill()
    ended = gone(said["pid"])
    group.close()
    aside = next(line for line in own.splitlines() if line.startswith("0::"))
    remaining = sorted(path.name for path in place.path.iterdir() if path.is_dir())
    return {
        "place": [place.version, str(place.path)],
        "inside": inside,
        "left": left == [said["pid"]],
        "gone": ended,
        "aside": aside,
        "remaining": remaining,
    }


def main():
    order = json.loads(sys.argv[1])
    if "controller" in order:
        print(json.dumps(delegated(order["controller"], order["deed"])))
        return
    means = probe()
    folder = make_own_folder()
    results = []
    for number, each in enumerate(order["deeds"]):
        own = folder / str(number)
        own.mkdir()
        results.append(run(means, own, each))
    folder.rmdir()
    found = {name: getattr(means, name) for name in ("memory", "pids", "tmp", "opt", "as_user")}
    print(json.dumps({"means": found, "why": dict(means.why), "results": results}))


if __name__ == "__main__":
    main()
