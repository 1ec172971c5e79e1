"""A sweep on a real Ray cluster of two nodes on the loopback, against the same sweep without Ray."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_trainings import assert_as_undisturbed, start_sweep

pytestmark = [pytest.mark.ray, pytest.mark.timeout(3600)]

STORE = 100 * 2**20  # bytes of each node's object store; nothing but configurations travels


@pytest.fixture
def cluster() -> Iterator[Any]:
    for name in ("ray", "hydra_plugins.hydra_ray_launcher"):
        pytest.importorskip(name, reason="python -m pip install -c constraints.txt -e '.[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False}
    )
    try:
        cluster.add_node(num_cpus=2, object_store_memory=STORE)
        cluster.connect()
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_sweep_over_two_nodes(cluster: Any, tmp_path: Path) -> None:
    from ray._private.state import available_resources_per_node

    spread = tmp_path / "spread"
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    sweep = start_sweep(spread, "hydra/launcher=ray", environment=environment)
    log, busy = spread.with_suffix(".log"), set()
    try:
        deadline = time.monotonic() + 1800
        while sweep.poll() is None and time.monotonic() < deadline:
            busy |= {node for node, left in available_resources_per_node().items() if left.get("CPU", 0) < 2}
            time.sleep(0.2)
        assert sweep.poll() == 0, log.read_text()
    finally:
        sweep.kill()
        sweep.wait()
    assert len(busy) == 2, "one node did all the work"
    assert_as_undisturbed(spread, tmp_path / "alone")
