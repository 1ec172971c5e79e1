"""A reference policy is a copy of a trained and measured one, and its card says what the records say."""

import pytest
from example_outputs import Example, write_example

from analyze.publish import publish
from analyze.report.load import find
from nrmap.policies.policy import load_policy, save_policy
from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json, sha256_of_file, write_json
from nrmap.support.layout import CARD_FILE, CURVES_FILE, METRICS_FILE, POLICY_FILE, SETTINGS_FILE, Layout
from nrmap.support.records import read_records, select

EXAMPLE = Example(methods=("sa_ddqn",), seeds=(3,), temperatures=(1.0,), prefix_sizes=(), states_from=("own",))


@pytest.fixture
def trained(tmp_path, tiny_settings):
    """The folder of a finished training with its evaluation."""
    write_example(tmp_path, tiny_settings(), EXAMPLE)
    (path,) = (tmp_path / "train").rglob(POLICY_FILE)
    return path.parent


@pytest.fixture
def evaluation(tmp_path, trained):
    (path,) = (tmp_path / "evaluation").glob("*/sa_ddqn/*/*/metrics.json")
    return path


def test_policy_curves_settings_and_evaluation_are_copied(tmp_path, trained, evaluation):
    target = publish(trained, Layout(tmp_path), scale="quick")
    assert target == tmp_path / "reference/quick/Freeway/sa_ddqn/seed3"
    (baselines,) = (tmp_path / "evaluation/Freeway/baseline").glob("*/metrics.json")
    copies = {target / name: trained / name for name in (POLICY_FILE, CURVES_FILE, SETTINGS_FILE)}
    copies[target / METRICS_FILE] = evaluation
    copies[target.parents[1] / "baseline" / baselines.parent.name / METRICS_FILE] = baselines
    assert [copy for copy, source in copies.items() if copy.read_bytes() != source.read_bytes()] == []
    found = find(tmp_path)
    places = [(training.folder, training.reference) for training in found.trainings]
    assert (places, found.problems) == ([("reference/quick/Freeway/sa_ddqn/seed3", "quick")], ())


def test_the_card_tells_hashes_recipe_and_every_clean_episode(tmp_path, trained, evaluation):
    text = (publish(trained, Layout(tmp_path), scale="quick") / CARD_FILE).read_text()
    policy = load_policy(trained / POLICY_FILE)
    assert text.startswith("# Freeway, SA-DDQN (adversarial), seed 3\n")
    assert f"SHA-256 of the policy: {policy.sha256}\n" in text
    assert f"SHA-256 of policy.safetensors: {sha256_of_file(trained / POLICY_FILE)}\n" in text
    assert f"* learner.batch_size: {policy.card.settings['learner']['batch_size']}\n" in text
    records = read_records(evaluation)
    for attack in ({"attack": "clean"}, {"attack": "pgd", "attack_steps": 50}):
        (mean,) = select(records, metric="return_mean", **attack)
        assert f"{mean.value:.2f}" in text
    episodes = ", ".join(f"{record.value:g}" for record in select(records, metric="return", attack="clean"))
    assert f"\n{episodes}\n" in text


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        (CURVES_FILE, CURVES_FILE),
        (SETTINGS_FILE, SETTINGS_FILE),
        (SETTINGS_FILE, "holds other settings"),
        (None, "Freeway/sa_ddqn/seed3 has no evaluation"),
    ],
)
def test_nothing_is_copied_where_a_file_is_damaged_or_the_evaluation_missing(lost, why, tmp_path, trained, evaluation):
    if why == "holds other settings":
        write_json(trained / lost, read_json(trained / lost) | {"steps": 7})
    elif lost:
        (trained / lost).write_text("{}")
    else:
        evaluation.write_text("{")
    with pytest.raises(NrmapError, match=why):
        publish(trained, Layout(tmp_path), scale="quick")
    assert not (tmp_path / "reference").exists()


def test_another_policy_is_replaced_only_when_told_to(tmp_path, trained):
    layout = Layout(tmp_path)
    target = publish(trained, layout, scale="quick")
    assert publish(target, layout, scale="quick") == target, "the same policy is no other one"
    other = load_policy(target / POLICY_FILE)
    other.network.state_dict()["advantage.2.bias"].add_(1)
    save_policy(target / POLICY_FILE, other)
    with pytest.raises(NrmapError, match="holds another policy"):
        publish(trained, layout, scale="quick")
    publish(trained, layout, scale="quick", replace=True)
    assert (target / POLICY_FILE).read_bytes() == (trained / POLICY_FILE).read_bytes()


def test_of_two_evaluations_the_fuller_is_taken(tmp_path, trained, evaluation):
    content = read_json(evaluation)
    for name in ("a", "z"):
        write_json(evaluation.parent.with_name(name) / METRICS_FILE, content | {"records": content["records"][:1]})
    assert (publish(trained, Layout(tmp_path), scale="quick") / METRICS_FILE).read_bytes() == evaluation.read_bytes()
