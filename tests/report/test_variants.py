"""Policies, states and episodes of one name are told apart."""

from dataclasses import replace
from itertools import product

from example_outputs import SMALL, edited, synthetic_states, write_maps, write_training

from analyze.report.load import find
from analyze.report.names import name_of, states_of
from analyze.report.return_tables import returns_table
from analyze.report.variants import differences
from nrmap.maps.null_networks import null_networks
from nrmap.play.states import save_states
from nrmap.policies.policy import load_policy
from nrmap.support.files import read_json, write_json
from nrmap.support.identity import stage_identity
from nrmap.support.layout import Layout
from nrmap.support.records import select


def add_evaluation(source, **changes):
    """The evaluation in `source` with other settings, which add 1 to every value, beside it."""
    content = read_json(source)
    content["settings"] |= changes
    for record in content["records"]:
        record["value"] += 1
    name = "other" if content["inputs"] else stage_identity("baselines", **content["settings"])
    write_json(source.parent.with_name(name) / "metrics.json", content)


def test_evaluations_on_other_episodes_are_told_apart(copied):
    for source in sorted((copied / "evaluation").rglob("metrics.json")):
        add_evaluation(source, run_seed=1)
    found = find(copied)
    clean = select(found.records, metric="return_mean", attack="clean")
    methods, protocols = ("ddqn", "sa_ddqn", "random_policy", "constant_action"), ("run_seed=0", "run_seed=1")
    assert {(one.method, one.protocol) for one in clean} == set(product(methods, protocols))
    assert ({record.protocol for record in found.records if record.states_from}, found.problems) == ({None}, ())
    players = {str(row[1].value): row for row in returns_table(found.records).rows}
    first, second = (players[f"always UP (run_seed={seed})"] for seed in (0, 1))
    assert second[3].value == first[3].value + 1
    assert {"random actions (run_seed=0)", "random actions (run_seed=1)"} <= players.keys()


def test_players_in_other_environments_are_told_apart(copied):
    (source,) = (path for path in (copied / "evaluation").rglob("metrics.json") if "baseline" in path.parts)
    env = read_json(source)["settings"]["env"]
    for changes in ({"noop_max": 0, "pooling": "rgb"}, {"noop_max": 5, "sticky_actions": 0.25}):
        add_evaluation(source, env=env | changes)
    found = find(copied)
    players = select(found.records, method="random_policy", attack="clean", metric="return_mean")
    assert (len({record.protocol for record in players}), found.problems) == (3, ())


def test_a_training_from_before_a_setting_had_its_default(tmp_path, tiny_settings, tiny_regulariser):
    new = tiny_settings(method="sa_ddqn", regulariser=tiny_regulariser(), parent=tiny_settings())
    write_training(Layout(tmp_path), new)
    path = write_training(Layout(tmp_path), replace(new, seed=0))
    path.unlink()
    with edited(path.with_name("settings.json")) as settings:
        for part in (settings, settings["parent"]):
            del part["anchor"]
        for name in ("hold_advantages", "ramp_of"):
            del settings["regulariser"][name]
    assert [training.variant for training in find(tmp_path).trainings] == [None, None]
    write_training(Layout(tmp_path), replace(new, seed=1, anchor=1.0))
    assert {training.variant for training in find(tmp_path).trainings} == {"anchor=0.0", "anchor=1.0"}


def test_two_analyses_of_one_policy_with_different_ablations_are_told_apart(copied):
    source, *_ = sorted((copied / "maps" / "Freeway" / "ddqn").rglob("metrics.json"))
    with edited(source, source.parent.with_name("other") / "metrics.json") as content:
        content["settings"]["ablation"]["value"] = 128
    mapped = [record for record in find(copied).records if record.method == "ddqn" and record.states_from]
    assert {states_of(record).label for record in mapped} == {"own states (value=0)", "own states (value=128)"}


def test_two_pools_of_one_name_are_told_apart(copied):
    for index, path in enumerate(sorted((copied / "maps").rglob("metrics.json"))):
        with edited(path) as content:
            content["inputs"]["states_sha256"] = f"{index}abcdefgh"
            for record in content["records"]:
                record["states_from"] = "pool"
    states = {states_of(record).label for record in find(copied).records if record.states_from}
    assert states == {"pooled states (0abcde)", "pooled states (1abcde)"}


def test_the_pools_of_all_seeds_have_one_name_and_random_weights_say_which_they_were_mapped_on(tmp_path, tiny_settings):
    layout = Layout(tmp_path)
    for seed in (0, 1):
        settings = [tiny_settings(method=method, seed=seed) for method in ("ddqn", "sa_ddqn")]
        policies = [load_policy(write_training(layout, each)) for each in settings]
        pool = layout.states(game="Freeway", identity=f"pool{seed}")
        save_states(pool, synthetic_states(policies[0], SMALL))
        for policy in [*policies, *null_networks(policies[1], "random_weights", 1, seed=0)]:
            write_maps(layout, policy, pool, "pool", SMALL)
    sizes = select(find(tmp_path).records, metric="sparsity", map_kind="kmap", prefix=False)
    assert {states_of(record).label for record in sizes} == {"pooled states"}
    assert sorted(name_of(record).label for record in sizes) == [
        *(f"{method} seed {seed}" for method in ("DDQN", "SA-DDQN") for seed in (0, 1)),
        *(f"random on seed {seed} draw 0" for seed in (0, 1)),
    ]


def test_differences_are_as_short_as_they_can_be():
    both = [{"x.steps": "1", "regulariser.kappa": "2"}, {"x.steps": "3", "regulariser.kappa": "4"}]
    assert differences(both) == ["kappa=2", "kappa=4"]
    assert differences([{"a": a, "b": b} for a in "12" for b in "12"])[1] == "a=1, b=2"
    assert differences([{"a": "1"}, {"a": "1"}]) == ["", ""]
    assert differences([{"a": a, "b": b, "c": c} for a in "12" for b in "12" for c in "12"])[0] == ""
