"""A real SLURM of two nodes on this machine's loopback, in one temporary folder and without accounting."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
INSTALL = "apt-get install slurm-wlm munge"
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
NODES = ("n1", "n2")

CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """The programs of SLURM and munge that are not installed here."""
    return [program for program in PROGRAMS if shutil.which(program, path=SEARCH) is None]


@dataclass(frozen=True)
class SlurmCluster:
    """A running cluster; SLURM's commands find it by `environment`."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a SLURM command; returns its output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    def tasks(self) -> dict[str, dict[str, str]]:
        """The fields of `scontrol show job` for every task of an array job, by the name that commands accept."""
        lines = self.run("scontrol", "--oneliner", "show", "job").splitlines()
        jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line.startswith("JobId=")]
        # The JobId alone, of one of the tasks, would mean the whole array.
        return {f"{job['ArrayJobId']}_{job['ArrayTaskId']}": job for job in jobs}


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """Start munged, a controller and two nodes with all their files in `folder`; stop them at the end."""
    folder.chmod(0o755)  # munge insists that others can reach its socket
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(host=socket.gethostname(), ports=_free_ports(3), user=user, folder=folder)
    )
    environment = {**os.environ, "PATH": SEARCH, "SLURM_CONF": str(configuration)}
    environment.pop("SLURM_JOB_ID", None)
    cluster = SlurmCluster(folder, environment)
    with contextlib.ExitStack() as daemons:
        for command in (
            [
                "munged", "--foreground", "--force",
                f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
                f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
                f"--seed-file={folder}/munge.seed",
            ],
            ["slurmctld", "-D", "-f", str(configuration)],
            *(["slurmd", "-D", "-N", node, "-f", str(configuration)] for node in NODES),
        ):  # fmt: skip
            daemons.enter_context(_daemon(command, environment, folder))
            if command[0] == "munged":
                _wait_for((folder / "munge.socket").exists, "munged", folder)
        _wait_for(lambda: _all_idle(cluster), "two idle nodes", folder)
        yield cluster
        with contextlib.suppress(subprocess.SubprocessError):
            cluster.run("scancel", "--full", "--user", user)


@contextlib.contextmanager
def _daemon(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with open(folder / "daemons.out", "ab") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _all_idle(cluster: SlurmCluster) -> bool:
    try:
        nodes = cluster.run("scontrol", "--oneliner", "show", "nodes").splitlines()
    except subprocess.SubprocessError:
        return False
    return len(nodes) == len(NODES) and all(re.search(r"State=IDLE(\s|$)", node) for node in nodes)


def _wait_for(condition, what: str, folder: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.log")))
            raise TimeoutError(f"no {what} after {seconds} s\n{(folder / 'daemons.out').read_text()[-2000:]}\n{logs}")
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
