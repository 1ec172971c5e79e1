"""W&B runs of `python -m train` and `python -m analyze`, and the dashboard that shows them, read back offline."""

import json
import os
from dataclasses import asdict, fields
from types import SimpleNamespace

import numpy as np
import pytest
from commands import TINY, TINY_ANALYSIS, commands_in
from toy_policies import toy_policy
from wandb_files import artifacts_of, parts, records_of, rows_of, summary_of, table_of

from analyze.workspace import study_workspace
from nrmap.maps.kinds import KINDS
from nrmap.maps.null_networks import NULL_NETWORKS
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.files import read_json
from nrmap.support.records import Record, read_records

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning"),
]  # fmt: skip

TEMPERATURES = (0.1, 1.0)
SIZES = ("env.height=64", "env.width=64")  # the smallest screen with a number for the grid
EVERY_CURVE = ("greedy_every=40", "greedy_episodes=1", "scale.robust_loss.pgd.rollback_every=40")
# One episode of each roll-out that the dashboard shows.
EVALUATION = (
    "evaluation.certify_epsilons=[0.00392156862745098,0.011764705882352941]",
    "evaluation.attack_runs=[{attack: pgd-10, attack_epsilon: 0.00392156862745098, episodes: 1},"
    "{attack: greedy_worst_case, attack_epsilon: 0.00392156862745098, episodes: 1},"
    "{attack: greedy_worst_case, attack_epsilon: 0.011764705882352941, episodes: 1}]",
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Folders: `outputs`, the `training`, `analyses` by temperature; and the `policy` file as it was trained."""
    place = tmp_path_factory.mktemp("tracked")
    (place / "home").mkdir()
    outputs = place / "outputs"
    account = [name for name in os.environ if name.startswith(("WANDB_", "XDG_")) or name == "NETRC"]
    environment = dict.fromkeys(account) | {"HOME": str(place / "home")}
    options = ("wandb.mode=offline", "wandb.tags=[mine]", "wandb.project=tried", f"outputs={outputs}")
    with commands_in(place) as commands:

        def run(*arguments):
            command = commands.start(*arguments, *options, environment=environment)
            assert command.wait() == 0, command.err

        run("train", *TINY, *SIZES)
        run("train", "-m", *TINY, *SIZES, "method=sa_ddqn,sa_ddqn_ibp", *EVERY_CURVE)
        # So little training leaves a policy that always takes one action, which no pixel changes.
        (path,) = outputs.glob("train/Freeway/ddqn/seed0/*/policy.safetensors")
        trained, policy = load_policy(path), path.read_bytes()
        save_policy(path, Policy(toy_policy(trained.env).network, trained.env, trained.card))
        for _ in range(2):  # the second finds everything finished and tracked
            run("analyze", "-m", *TINY_ANALYSIS, *SIZES, *EVALUATION, "controls=1", "temperature=0.1,1")
    found = outputs.glob("maps/Freeway/ddqn/seed0/*/metrics.json")
    analyses = {read_json(metrics)["settings"]["temperatures"][0]: metrics.parent for metrics in found}
    return SimpleNamespace(outputs=outputs, training=path.parent, policy=policy, analyses=analyses)


def only_part(folder):
    (part,) = parts(folder)
    return part


def description_of(part):
    (run,), whole = records_of(part, "run"), summary_of(part)
    assert (whole["project"], whole["state"], whole["exit_code"]) == ("tried", "finished", 0)
    return run["run_group"], run["job_type"], run["display_name"], whole["tags"]


def numbers_of(part):
    return {name: value for name, value in summary_of(part)["summary"].items() if isinstance(value, float | int)}


def test_a_training_is_one_run_with_its_curves_and_files(tracked):
    folder = tracked.training
    part = only_part(folder)
    assert description_of(part) == ("Freeway-smoke", "train", "Freeway-ddqn-seed0", ["mine", "Freeway", "ddqn"])
    assert summary_of(part)["config"] == {"game": "Freeway", **read_json(folder / "settings.json")}
    curves = read_json(folder / "curves.json")
    assert rows_of(part) == [{"_step": row["agent_step"], **row} for row in curves["rows"]]
    assert numbers_of(part).items() >= curves["rows"][-1].items()
    (files,) = artifacts_of(part).values()
    assert files == {"policy.safetensors": tracked.policy, "curves.json": (folder / "curves.json").read_bytes()}


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_an_analysis_is_one_run_with_every_kind_of_map(tracked, temperature):
    folder = tracked.analyses[temperature]
    part = only_part(folder)
    name = f"Freeway-ddqn-seed0-own-T{temperature:g}"
    assert description_of(part) == ("Freeway-smoke", "analyze", name, ["mine", "Freeway", "ddqn", "own"])
    expected = {"game": "Freeway", "method": "ddqn", "seed": 0, "controls": 1}
    expected |= {"maps": read_json(folder / "metrics.json")["settings"]}
    assert summary_of(part)["config"].items() >= expected.items()
    numbers = numbers_of(part)
    spelled = {0.1: "_T0p1", 1.0: "_T1"}[temperature]
    with np.load(folder / "maps.npz") as maps:
        for kind in KINDS:
            total = maps[kind].sum(axis=-3).ravel()  # of [E, H, W] or [1, E, H, W]
            measured = numbers[f"{kind}_sparsity" + (spelled if maps[kind].ndim == 4 else "")]
            assert measured == pytest.approx(np.abs(total).sum() / np.sqrt((total**2).sum()))
    last = summary_of(part)["summary"]
    for name in ("heatmaps", "overlay"):
        assert (part / "files" / last[name]["path"]).read_bytes() == (folder / f"{name}.png").read_bytes()
    files = {name: (folder / name).read_bytes() for name in ("maps.npz", "metrics.json")}
    assert artifacts_of(part)[f"maps-{folder.name}", "maps"] == files


def test_the_table_of_an_analysis_has_every_record(tracked):
    columns, rows = table_of(only_part(tracked.analyses[1.0]), "records")
    assert columns == [field.name for field in fields(Record)]
    paths = [path for stage in ("evaluation", "maps") for path in tracked.outputs.glob(f"{stage}/**/metrics.json")]
    found = [record for path in paths for record in read_records(path) if record.temperature in (None, 1.0)]
    assert len({record.method for record in found}) == 5  # the policy, two baselines and two null networks
    # Maps without a temperature are in both analyses.
    expected = {json.dumps([*asdict(record).values()]) for record in found}
    assert {json.dumps(row) for row in rows} == expected


def test_the_dashboard_shows_what_runs_hold(tracked):
    pytest.importorskip("wandb_workspaces")
    model = study_workspace(entity="team", project="tried", temperatures=TEMPERATURES)._to_model()
    sections = json.loads(model.model_dump_json(by_alias=True))["spec"]["section"]["panelBankConfig"]["sections"]
    panels = {section["name"]: [panel["config"] for panel in section["panels"]] for section in sections}
    shown = {title: {name for panel in each for name in panel.get("metrics") or ()} for title, each in panels.items()}
    trainings = [only_part(folder) for folder in tracked.outputs.glob("train/*/*/seed0/*")]
    analyses = [only_part(folder) for folder in tracked.analyses.values()]
    numbers = set().union(*map(numbers_of, analyses))
    media = set().union(*(summary_of(part)["summary"] for part in analyses)) - numbers

    assert len(shown["Training"]) > 10
    assert shown["Training"] <= {name for part in trainings for row in rows_of(part) for name in row}
    assert len(shown["Returns and attacks"]) == 7
    assert shown["Returns and attacks"] <= numbers
    own = {name for name in numbers if not name.startswith(NULL_NETWORKS)}
    names = {name for name in own if name.endswith(("_sparsity", "_sparsity_T0p1", "_sparsity_T1"))}
    assert {name.partition("_sparsity")[0] for name in names} == {*KINDS}
    assert shown["Sparsity S = ‖M‖₁ / ‖M‖₂ (eq. 9)"] == names
    names |= {name.replace("_sparsity", "_grid_excess") for name in names}
    beside = shown["Null networks and the grid"]
    assert beside == {prefix + name for name in names for prefix in ("", *(f"{kind}_" for kind in NULL_NETWORKS))}
    # No pixel changes the action of some null networks: their KMAP and flip map are 0 and have no sparsity.
    undefined = tuple(f"{null}_{kind}_" for null in NULL_NETWORKS for kind in ("kmap", "flip_map"))
    assert {name for name in beside if not name.startswith(undefined)} <= numbers
    assert {key for panel in panels["Maps"] for key in panel["mediaKeys"]} | {"records"} <= media
