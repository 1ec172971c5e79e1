"""What `python -m train` and `python -m analyze` tell W&B, read from the files of runs without an account."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, TINY_ANALYSIS, commands_in, result_of
from wandb_files import artifacts_of, parts, records_of, rows_of, runs_of, summary_of

from nrmap.support.files import read_json
from nrmap.support.records import Record, read_records

# A busy machine may take several times as long as an idle one.
pytestmark = pytest.mark.timeout(900)

# A row of the curves every 2,000 steps, and one at the end; few updates and few beginnings of episodes.
LONGER = ("scale.steps=4100", "scale.steps_per_update=100", "env.max_agent_steps=500")
OFFLINE = ("wandb.mode=offline", "wandb.tags=[mine]", "wandb.project=tried")


@dataclass(frozen=True)
class Tracked:
    """The folders of a training and of its analysis; each command ran twice."""

    home: Path
    training: Path
    maps: Path

    @property
    def outputs(self) -> Path:
        return self.training.parents[4]

    def records(self) -> list[Record]:
        """All that was measured, from the files; of controls last, as the analysis has them."""
        paths = sorted([*self.outputs.glob("evaluation/**/metrics.json"), *self.outputs.glob("maps/**/metrics.json")])
        return [record for path in paths for record in read_records(path)]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    place = tmp_path_factory.mktemp("tracked")
    home = place / "home"
    home.mkdir()
    # A user whom W&B does not know.
    names = [name for name in os.environ if name.startswith(("WANDB_", "XDG_")) or name == "NETRC"]
    environment: dict[str, str | None] = {**dict.fromkeys(names), "HOME": str(home)}
    outputs = f"outputs={place / 'outputs'}"
    train = ("train", *TINY, *LONGER, *OFFLINE, outputs)
    with commands_in(place) as commands:
        policies = [result_of(commands.start(*train, environment=environment)) for _ in range(2)]
        analyze = ("analyze", *TINY_ANALYSIS, *OFFLINE, f"policy={policies[0]}", "controls=1", "temperature=[0.1,1]")
        folders = [result_of(commands.start(*analyze, outputs, environment=environment)) for _ in range(2)]
    assert policies[0] == policies[1]
    assert folders[0] == folders[1]
    return Tracked(home, policies[0].parent, folders[0])


def only_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The part and the description of the only run in `folder`: the repeated command made none."""
    (part,) = parts(folder)
    (run,) = runs_of(part)
    return part, run


def payloads(part: Path, name: str) -> dict[str, bytes]:
    """The files of an artifact."""
    return {
        entry["path"]: Path(entry["local_path"]).read_bytes()
        for entry in artifacts_of(part)[name]["manifest"]["contents"]
    }


def test_a_training_is_one_run(tracked: Tracked) -> None:
    part, run = only_run(tracked.training)
    told = summary_of(part)
    assert (run["run_id"], run["run_group"], run["job_type"], run["display_name"]) == (
        f"train-{tracked.training.name}", "Freeway-smoke", "train", "Freeway-ddqn-seed0",
    )  # fmt: skip
    assert (told["project"], told["tags"]) == ("tried", ["mine", "Freeway", "ddqn"])
    assert (told["state"], told["exit_code"]) == ("finished", 0)
    assert told["config"] == {"game": "Freeway", **read_json(tracked.training / "settings.json")}


def test_the_curves_of_a_training_are_logged_at_their_agent_steps(tracked: Tracked) -> None:
    part, _ = only_run(tracked.training)
    curves = read_json(tracked.training / "curves.json")
    rows = rows_of(part)
    assert [row["agent_step"] for row in rows] == [2000, 4000, 4100]
    assert rows == [{"_step": row["agent_step"], **row} for row in curves["rows"]]
    assert {"loss", "q_mean", "epsilon", "learning_rate", "recent_mean_return", "steps_per_second"} <= rows[-1].keys()
    last = summary_of(part)["summary"]
    assert last["seconds"] == pytest.approx(curves["seconds"], rel=0.01)
    assert last["loss"] == rows[-1]["loss"]


def test_a_training_hands_over_its_policy_and_curves(tracked: Tracked) -> None:
    part, _ = only_run(tracked.training)
    assert {name: one["type"] for name, one in artifacts_of(part).items()} == {"Freeway-ddqn-seed0": "policy"}
    names = ("policy.safetensors", "curves.json")
    expected = {name: (tracked.training / name).read_bytes() for name in names}
    assert payloads(part, "Freeway-ddqn-seed0") == expected


def test_an_analysis_is_one_run(tracked: Tracked) -> None:
    part, run = only_run(tracked.maps)
    told = summary_of(part)
    assert (run["run_group"], run["job_type"], run["display_name"]) == (
        "Freeway-smoke", "analyze", "Freeway-ddqn-seed0-own-T0.1-1",
    )  # fmt: skip
    assert run["run_id"].startswith("analyze-")
    assert (told["project"], told["tags"]) == ("tried", ["mine", "Freeway", "ddqn", "own"])
    assert (told["state"], told["exit_code"]) == ("finished", 0)
    (evaluation,) = tracked.outputs.glob("evaluation/Freeway/ddqn/seed0/*/metrics.json")
    assert told["config"] == {
        "game": "Freeway",
        "method": "ddqn",
        "seed": 0,
        "states": {"num_states": 6, "episodes": 3, "run_seed": 0, "states_from": "own"},
        "evaluation": read_json(evaluation)["settings"],
        "maps": read_json(tracked.maps / "metrics.json")["settings"],
        "controls": 1,
    }


def test_the_table_of_an_analysis_has_every_record(tracked: Tracked) -> None:
    part, _ = only_run(tracked.maps)
    table = json.loads((part / "files" / summary_of(part)["summary"]["records"]["path"]).read_text())
    assert table["columns"] == [field.name for field in fields(Record)]
    expected = [[getattr(record, name) for name in table["columns"]] for record in tracked.records()]
    methods = {record.method for record in tracked.records()}
    assert methods == {"ddqn", "constant_action", "random_policy", "random_weights", "shuffled_weights"}
    assert sorted(map(json.dumps, table["data"])) == sorted(json.dumps(row) for row in expected)


def test_the_summary_of_an_analysis_has_every_headline_number(tracked: Tracked) -> None:
    part, _ = only_run(tracked.maps)
    last = summary_of(part)["summary"]
    numbers = {name: value for name, value in last.items() if not isinstance(value, dict) and name[0] != "_"}
    expected: dict[str, float] = {}
    for record in tracked.records():
        if record.is_part or record.value is None:
            continue
        name = record.metric_key
        if record.method == "ddqn":
            name += f"_{record.attack}" if record.attack else ""
        elif record.method in ("random_weights", "shuffled_weights"):
            if record.metric not in ("sparsity", "grid_excess"):
                continue
            name = f"{record.method}_{name}"
        else:
            name += "_random_policy" if record.variant is None else f"_constant_{record.variant}"
        expected[name + {None: "", 0.1: "_T0p1", 1.0: "_T1"}[record.temperature]] = record.value
    assert {"return_mean_clean", "return_mean_constant_UP", "hmap_sparsity_T0p1", "kl_sparsity_T1"} <= expected.keys()
    assert {"random_weights_kl_sparsity_T1", "shuffled_weights_hmap_sparsity_T0p1"} <= expected.keys()
    assert numbers == pytest.approx(expected)


def test_an_analysis_hands_over_its_pictures_and_maps(tracked: Tracked) -> None:
    part, _ = only_run(tracked.maps)
    last = summary_of(part)["summary"]
    for name in ("heatmaps", "overlay"):
        assert last[name]["_type"] == "image-file"
        assert (part / "files" / last[name]["path"]).read_bytes() == (tracked.maps / f"{name}.png").read_bytes()
    artifact = f"maps-{tracked.maps.name}"
    assert {name: one["type"] for name, one in artifacts_of(part).items() if one["type"] != "run_table"} == {
        artifact: "maps"
    }
    expected = {name: (tracked.maps / name).read_bytes() for name in ("maps.npz", "metrics.json")}
    assert payloads(part, artifact) == expected


def test_curves_have_the_agent_step_as_their_axis(tracked: Tracked) -> None:
    axes = {folder: records_of(only_run(folder)[0], "metric") for folder in (tracked.training, tracked.maps)}
    assert [metric.get("step_metric") for metric in axes[tracked.training]] == [None, "agent_step"]
    assert axes[tracked.maps] == []  # which has no curves


def test_nothing_is_written_to_the_home_folder_by_wandb(tracked: Tracked) -> None:
    assert [path for path in tracked.home.rglob("*") if "wandb" in str(path.relative_to(tracked.home))] == []
