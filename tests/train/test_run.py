"""A run from settings to policy within one process: interrupted, gone on with, and found again under other options."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from composed import composed
from toy_policies import toy_policy

from conf.schema import TrainKeys
from nrmap.atari.episode_seeds import VALIDATION_STREAM, episode_seeds
from nrmap.play.rollout import greedy, play
from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError
from nrmap.support.files import read_json
from nrmap.support.layout import CHECKPOINT_FILE, CURVES_FILE, Layout
from nrmap.support.schema import validated
from nrmap.support.tracking import Tracker
from train.checkpoint import load_checkpoint, save_checkpoint
from train.greedy_returns import GreedyReturns
from train.run import RunOptions, ensure_trained


@pytest.fixture
def run(tmp_path, caplog, monkeypatch):
    """`run(settings, "bfloat16")`: the policy file; None where `interrupted` before there is one."""
    caplog.set_level(logging.INFO)

    def run(settings, precision="auto", *, folder="outputs", interrupted=False, greedy_every=0) -> Path | None:
        keys = replace(validated(TrainKeys, composed("train", "wandb=disabled")), precision=precision)
        keys = replace(keys, checkpoint_seconds=0.0, greedy_every=greedy_every, greedy_episodes=2)
        options = RunOptions(keys, torch.device("cpu"), Layout(tmp_path / folder))
        if not interrupted:
            return ensure_trained(settings, options)
        with monkeypatch.context() as patch:  # ends before the policy is written, as by a kill
            patch.setattr(Tracker, "log", Mock(side_effect=InterruptedError))
            with pytest.raises(InterruptedError):
                ensure_trained(settings, options)
        return None

    return run


def same_weights(one: Path, other: Path) -> bool:
    weights, others = (load_policy(path).network.state_dict() for path in (one, other))
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_run_goes_on_in_the_precision_it_was_begun_in(run, tiny_settings, caplog):
    settings = tiny_settings(steps=60)
    run(settings, "bfloat16", interrupted=True)
    path = run(settings)
    assert "Freeway/ddqn/seed3: going on from agent step 58, in bfloat16" in caplog.messages
    assert load_policy(path).card.results["precision"] == "bfloat16"
    assert same_weights(path, run(settings, "bfloat16", folder="whole"))
    assert not same_weights(path, run(settings, "float32", folder="other"))


def test_another_precision_or_device_is_refused_and_nothing_is_lost(run, tmp_path, tiny_settings):
    settings = tiny_settings(steps=60)
    run(settings, "bfloat16", interrupted=True)
    (path,) = (tmp_path / "outputs").rglob(CHECKPOINT_FILE)
    before = path.read_bytes()
    with pytest.raises(NrmapError, match=rf"{path} was started in bfloat16, not in float32: .*precision=bfloat16"):
        run(settings, "float32")
    assert path.read_bytes() == before
    state = load_checkpoint(path)
    assert state["machine"] == {"device": "cpu", "precision": "bfloat16"}
    save_checkpoint(path, {**state, "machine": {"device": "cuda", "precision": "bfloat16"}})
    with pytest.raises(NrmapError, match=f"{path} was started on cuda: continue with device=cuda"):
        run(settings)
    assert path.exists()


def test_a_checkpoint_beside_a_finished_policy_is_removed(run, tiny_settings):
    path = run(tiny_settings(steps=60))
    (left_over := path.with_name(CHECKPOINT_FILE)).touch()
    assert run(tiny_settings(steps=60)) == path
    assert not left_over.exists()


def test_greedy_returns_are_those_of_the_policy_and_change_no_weight(run, tiny_settings, monkeypatch):
    monkeypatch.setattr("train.curves.ROW_EVERY", 20)
    settings = tiny_settings(steps=60, env={"game": "Breakout", "max_agent_steps": 100})
    plain, path = run(settings), run(settings, folder="played", greedy_every=30)
    assert same_weights(plain, path)
    rows = read_json(path.with_name(CURVES_FILE))["rows"]
    assert [row["agent_step"] for row in rows if "greedy_return" in row] == [40, 60]
    policy = load_policy(path)
    seeds = episode_seeds(settings.env, settings.seed, 2, VALIDATION_STREAM)
    episodes = play(greedy(policy), settings.env, seeds, num_envs=2)
    assert rows[-1]["greedy_return"] == pytest.approx(sum(episode.total_reward for episode in episodes) / 2)
    assert "greedy_return" not in read_json(plain.with_name(CURVES_FILE))["rows"][-1]


def test_a_resumed_training_plays_no_greedy_episodes_before_they_are_due(run, tiny_settings, monkeypatch):
    monkeypatch.setattr("train.curves.ROW_EVERY", 20)
    settings = tiny_settings(steps=60, env={"game": "Breakout", "max_agent_steps": 100})
    run(settings, interrupted=True)  # its checkpoint is of agent step 18
    path = run(settings, greedy_every=15)
    assert path is not None
    rows = read_json(path.with_name(CURVES_FILE))["rows"]
    assert [row["agent_step"] for row in rows if "greedy_return" in row] == [40, 60]


def test_after_a_roll_back_greedy_episodes_are_played_again(run, tiny_settings, tiny_regulariser, monkeypatch):
    monkeypatch.setattr("train.curves.ROW_EVERY", 20)

    def probe(trainer):
        behind = trainer.learner.attack_level == 0 and trainer.agent_step in (40, 50)
        return {"probe_flips": 0.9 * behind, "probe_own_flips": 0.1}

    monkeypatch.setattr("train.training.Trainer.probe", probe)
    regulariser = tiny_regulariser(rollback_every=10, ramp_steps=20)
    env = {"game": "Breakout", "max_agent_steps": 100}
    path = run(tiny_settings(steps=60, warm_up_steps=60, env=env, regulariser=regulariser), greedy_every=20)
    curves = read_json(path.with_name(CURVES_FILE))
    assert [(each["agent_step"], each["back_to"]) for each in curves["rollbacks"]] == [(50, 30)]
    # The return of agent step 20 may be lost, as its row may be still unfinished then.
    assert {40, 60} <= {row["agent_step"] for row in curves["rows"] if "greedy_return" in row}


def test_a_policy_has_the_averaged_weights(run, tiny_settings):
    last, averaged = (run(tiny_settings(steps=60, learner={"average_from": start})) for start in (1.0, 0.5))
    assert not same_weights(last, averaged)


def test_greedy_episodes_end_with_the_training(tiny_settings):
    env = tiny_settings(env={"max_agent_steps": 100_000}).env
    playing = GreedyReturns(env, run_seed=0, every=10, episodes=1)
    network = toy_policy(env).network
    for agent_step in (10, 20, 30):
        playing.start_if_due({"agent_step": agent_step}, lambda: network)
    while not playing._pending[0][1].running():
        time.sleep(0.01)
    playing.close()
    first, *others = (future for _, future in playing._pending)
    with pytest.raises(NrmapError, match="the training has ended"):
        first.result(timeout=60)
    assert all(other.cancelled() for other in others)


def test_a_checkpoint_of_another_training_is_refused(run, tmp_path, tiny_settings):
    run(tiny_settings(steps=60), interrupted=True)
    run(tiny_settings(steps=60, seed=4), interrupted=True)
    one, other = sorted((tmp_path / "outputs").rglob(CHECKPOINT_FILE))
    other.write_bytes(one.read_bytes())
    with pytest.raises(NrmapError, match=rf"{other} is of another training, {one.parent.name}; remove {other}"):
        run(tiny_settings(steps=60, seed=4))
    state = load_checkpoint(one)
    for damaged in ({"agent_step": -2}, {"agent_step": "x"}, {"agent_step": 1.5}):
        save_checkpoint(one, {**state, "trainer": {**state["trainer"], **damaged}})
        with pytest.raises(NrmapError, match="is damaged"):
            run(tiny_settings(steps=60))
