"""The one command for a GPU: its stages are guarded, and a rehearsal on the CPU runs all of them."""

import json
import sys

import pytest

from bench import gpu, gpu_stages
from bench.documents import of_gpu
from nrmap.support.files import write_json

SCRIPTS = {
    "updates": "report({'rate': 2.5}); report({'rate': 3.5})",
    "maps": "report({'part': 1}); import time; time.sleep(60)",
    "attack": "report({'rate': 1.0}); raise ValueError('no kernel image')",
    "host": "report({'device': 'cpu', 'update_milliseconds': {'ddqn': 1.0}})",
}


START = "import json, pathlib; report = lambda found: pathlib.Path({!r}).write_text(json.dumps(found))\n"


def files_of(folder):
    return (json.loads((folder / f"{name}-cpu.json").read_text()) for name in ("train", "maps", "host"))


def test_a_stage_that_fails_or_hangs_loses_only_itself(tmp_path, monkeypatch, ended):
    def command_of(stage, device, limit, output):
        return [sys.executable, "-c", START.format(str(output)) + SCRIPTS[stage]]

    monkeypatch.setattr(gpu, "command_of", command_of)
    monkeypatch.setattr(gpu, "STAGES", {**gpu.STAGES, "maps": ("maps", 0.05)})
    options = ["--device", "cpu", "--minutes", "1", "--output", str(tmp_path), "--stages", *SCRIPTS]
    status, out, _ = ended(gpu.main, *options)
    assert status == 1
    train, maps, host = files_of(tmp_path)
    assert (train["updates"]["status"], train["updates"]["rate"]) == ("ok", 3.5)
    assert (maps["maps"]["status"], maps["maps"]["part"]) == ("out of time", 1)
    assert (train["attack"]["status"], train["attack"]["rate"]) == ("failed", 1.0)
    assert train["attack"]["last_lines"][-1] == "ValueError: no kernel image"
    assert host["update_milliseconds"] == {"ddqn": 1.0}
    assert "ValueError: no kernel image" in out


def test_every_stage_has_its_measurement():
    assert set(gpu.STAGES) == {*gpu_stages.STAGES, "tests"}
    assert sum(fraction for _, fraction in gpu.STAGES.values()) < 1.2


def test_the_document_says_what_is_not_measured(tmp_path):
    assert of_gpu(tmp_path) == "Not measured."
    machine = {"gpu": "NVIDIA H100", "processor": "a processor", "cores": 16, "commit": "abc"}
    updates = {"status": "out of time", "ddqn": {"milliseconds_graphs": 0.35, "kernels": 150}}
    dense = {"milliseconds_dense_float32_512": 9.0, "milliseconds_dense_float32_2048": 2.04}
    write_json(tmp_path / "train-cuda.json", {"updates": updates, "machine": machine})
    write_json(tmp_path / "maps-cuda.json", {"maps": dense, "machine": machine})
    text = of_gpu(tmp_path)
    assert "| ddqn | 0.35 | not measured | not measured | 150 | not measured | not measured |" in text
    assert "| dense batches, float32 | 2.04 |\n| dense batches, tf32 | not measured |" in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rehearsal_on_the_cpu_runs_every_stage(tmp_path, ended):
    assert ended(gpu.main, "--device", "cpu", "--minutes", "20", "--output", str(tmp_path))[0] == 0
    train, maps, host = files_of(tmp_path)
    assert sum(train["tests"].get(end, 0) for end in ("skipped", "passed")) > 5, "the tests marked cuda"
    assert train["updates"]["sa_ddqn"].keys() >= {"equal_bit_for_bit"}
    assert train["side_by_side"]["ddqn 2"]["updates_per_second"] > 0
    assert train["attack"]["milliseconds_player"] > 0
    assert train["training"]["updates"] > 0
    assert maps["maps"]["argmax_mismatches"] == 0
    assert host["update_milliseconds"]["sa_ddqn"] > host["update_milliseconds"]["ddqn"]
