"""A real SLURM of one node on this machine's loopback, started and stopped by a test.

Everything it writes lies in one folder: configuration, state, logs, the authentication daemon's key
and socket. It needs root, as slurmd does, and Debian's packages slurm-wlm and munge.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged", "mungekey")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits for its old credential to expire: two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [name for name in PROGRAMS if not _program(name)]
    if absent:
        return f"no {', '.join(absent)} here (apt-get install slurm-wlm munge)"
    return "slurmd needs root" if os.geteuid() else None


@contextmanager
def cluster(folder: Path, *, cores: int = 2, memory: int = 3000):
    """Starts the daemons, yields the environment in which sbatch finds them, stops them.

    Args:
        folder: an empty folder, reachable for everybody along its path.
        cores: of the node, whatever the machine has.
        memory: of the node, in MB.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    ports = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    settings = {"folder": folder, "host": host, "cores": cores, "memory": memory}
    path = folder / "slurm.conf"
    path.write_text(CONFIGURATION.format(controller=ports[0], daemon=ports[1], **settings))
    # The oldest plugin is loaded and not used: processes are found in /proc, tasks are not bound.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    environment = os.environ | {"SLURM_CONF": str(path)}
    key = folder / "munge.key"
    _call("mungekey", "--create", f"--keyfile={key}")
    files = {"key-file": key, "socket": "munge.socket", "pid-file": "munged.pid"}
    files |= {"log-file": "munged.log", "seed-file": "munge.seed"}
    try:
        _call("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))
        for daemon in ("slurmctld", "slurmd"):
            _call(daemon, "-f", path, env=environment)
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        if (folder / "slurmctld.pid").exists():
            subprocess.run(["scancel", "--user=root"], env=environment, timeout=20)
        for name in ("slurmd", "slurmctld", "munged"):
            _stop(folder / f"{name}.pid")


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, timeout=20
        )
        if shown.stdout.strip() == "idle":
            return
        time.sleep(0.3)
    logs = "\n".join((folder / f"{name}.log").read_text() for name in ("slurmctld", "slurmd"))
    raise RuntimeError(f"no idle node within a minute: {shown.stdout} {shown.stderr}\n{logs}")


def _stop(path: Path) -> None:
    try:
        pid = int(path.read_text())
        os.kill(pid, 15)
    except (OSError, ValueError):
        return
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    os.kill(pid, 9)


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _call(name: str, *arguments: object, **options: object) -> None:
    command = [_program(name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _free_ports(number: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
