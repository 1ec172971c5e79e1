"""A sweep on a real SLURM of two nodes: jobs that are requeued in the middle end in the weights of undisturbed ones."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import reached
from slurm_cluster import INSTALL, NODES, SlurmCluster, missing_programs, slurm_cluster
from small_trainings import JOBS, STEPS, assert_as_undisturbed, policies, start_sweep

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not found: {INSTALL}")
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="python -m pip install -c constraints.txt -e '.[slurm]'"
    )
    # Sockets have short names, and munge wants a folder that others may enter.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder,
        slurm_cluster(Path(folder)) as cluster,
    ):
        yield cluster


def test_requeued_jobs_end_in_the_same_weights(cluster: SlurmCluster, tmp_path: Path) -> None:
    disturbed = tmp_path / "disturbed"
    sweep = start_sweep(
        disturbed, "hydra/launcher=slurm", "hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1",
        environment=cluster.environment,
    )  # fmt: skip
    log = disturbed.with_suffix(".log")
    try:
        deadline = time.monotonic() + 1800
        while min(reached(disturbed, "ddqn", seed) for seed in ("seed0", "seed1")) < STEPS // 8:
            assert sweep.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        tasks = cluster.tasks()
        assert [task["JobState"] for task in tasks.values()] == ["RUNNING"] * len(JOBS)
        assert {task["NodeList"] for task in tasks.values()} == set(NODES)
        # All at once, for who trains a policy and who waits for it is chance. Half of them as an
        # administrator does it, half as a preemption does: by the signal that submitit waits for.
        for name in sorted(tasks)[::2]:
            cluster.run("scontrol", "requeue", name)
        for name in sorted(tasks)[1::2]:
            cluster.run("scancel", "--signal=USR2", name)
        assert not policies(disturbed), "the jobs had finished before they were disturbed"
        assert sweep.wait(timeout=1800) == 0, log.read_text()
    finally:
        sweep.kill()
        sweep.wait()
    assert [task["Restarts"] for task in cluster.tasks().values()] == ["1"] * len(JOBS)
    logs = "".join(path.read_text() for path in disturbed.glob("logs/train/*/*/*/*/train.log"))
    for seed in (0, 1):
        assert f"Breakout/ddqn/seed{seed}: going on from agent step" in logs
    assert_as_undisturbed(disturbed, tmp_path / "alone")
