"""Roll-backs: where a run goes back, what it goes on with, and that a kill in the middle changes nothing."""

import pytest
import torch

from train import training as training_module
from train.training import GOOD_CHECKPOINT_FILE, start_or_resume

EVERY = 10  # agent steps
LEFT_BEHIND = {"probe_flips": 0.6, "probe_own_flips": 0.1}
HELD = {"probe_flips": 0.15, "probe_own_flips": 0.1}


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def begin(tmp_path, monkeypatch, tiny_settings, tiny_regulariser):
    """`begin("folder", left_behind={(60, 0)})`: a training that is left behind at agent step 60 of attack level 0."""

    def begin(folder: str, left_behind: set[tuple[int, int]], steps: int = 60, pgd_steps: int = 2):
        regulariser = tiny_regulariser(rollback_every=EVERY, ramp_steps=20, pgd_steps=pgd_steps)
        settings = tiny_settings(method="sa_ddqn", steps=steps, warm_up_steps=10, regulariser=regulariser)
        training = start_or_resume(settings, tmp_path / folder, device=torch.device("cpu"), precision="float32")

        def probe(trainer):
            return LEFT_BEHIND if (trainer.agent_step, trainer.learner.attack_level) in left_behind else HELD

        monkeypatch.setattr(training_module.Trainer, "probe", probe)
        return training

    return begin


def run(training, *, fell: frozenset[tuple[int, int]] = frozenset()) -> list[int]:
    """The agent steps of all iterations, with the checkpoint by the clock at odd places; margins fall at `fell`."""
    steps = []
    for iteration in training.iterations():
        steps.append(iteration.agent_step)
        training.curves.record(iteration)
        here = (iteration.agent_step, training.trainer.learner.attack_level)
        metrics = {**training.trainer.metrics(), "margin_fell": 0.01 * (here in fell)}
        training.curves.add_row(iteration.agent_step, metrics)
        if iteration.agent_step % 26 == 0:
            training.save()
    return steps


def test_a_run_that_is_left_behind_twice_in_a_row_repeats_from_the_last_good_step_with_a_stronger_attack(begin):
    training = begin("run", {(20, 0), (30, 0), (40, 1), (50, 1), (60, 2)})  # once, at the end, is not enough
    # At agent step 30 margins fall, which is no good state to go back to.
    steps = run(training, fell=frozenset({(30, 1)}))
    assert steps == [*range(2, 31, 2), *range(12, 51, 2), *range(22, 61, 2)]
    attack = training.trainer.learner.inner_attack
    assert (attack.steps, attack.step_fraction) == (4, 0.5)
    assert training.curves.rollbacks == [
        {"agent_step": left, "back_to": back, **LEFT_BEHIND, "inner_attack": "pgd", **attack}
        for left, back, attack in (
            (30, 10, {"pgd_steps": 3, "pgd_step_fraction": 2 / 3}),
            (50, 20, {"pgd_steps": 4, "pgd_step_fraction": 2 / 4}),
        )
    ]
    assert [row["agent_step"] for row in training.curves.rows] == list(range(2, 61, 2))
    assert [row["agent_step"] for row in training.curves.abandoned_rows] == [*range(12, 31, 2), *range(22, 51, 2)]
    seconds = [row["seconds"] for row in training.curves.rows]
    assert seconds == sorted(seconds)
    calm = begin("calm", set())
    run(calm)
    assert not all(map(torch.equal, *(one.trainer.learner.online.parameters() for one in (training, calm))))


def test_without_a_good_checkpoint_a_run_goes_back_to_its_start(begin, tmp_path):
    (left := tmp_path / "run" / GOOD_CHECKPOINT_FILE).parent.mkdir()
    left.write_bytes(b"of a run whose checkpoint was removed")
    training = begin("run", {(10, 0), (20, 0)}, steps=20)
    assert run(training) == [*range(2, 21, 2), *range(2, 21, 2)]


def test_an_attack_as_strong_as_the_probe_is_not_strengthened(begin):
    training = begin("run", {(step, level) for step in (10, 20) for level in range(20)}, steps=20, pgd_steps=7)
    run(training)
    assert training.trainer.learner.inner_attack.steps == 10
    assert len(training.curves.rollbacks) == 3


@pytest.mark.slow
def test_a_kill_before_any_write_changes_no_bit_of_what_follows(begin, monkeypatch, assert_same):
    left_behind = {(20, 0), (30, 0), (40, 1)}
    save, writes, fatal = training_module.save_checkpoint, [], None

    def save_or_die(path, state):
        if len(writes) == fatal:
            raise KilledError
        save(path, state)
        writes.append(path.name)

    monkeypatch.setattr(training_module, "save_checkpoint", save_or_die)
    whole = begin("whole", left_behind, steps=46)
    run(whole)
    assert writes.count(GOOD_CHECKPOINT_FILE) >= 2
    for number in range(len(writes)):
        writes.clear()
        fatal = number
        with pytest.raises(KilledError):
            run(begin(f"killed-{number}", left_behind, steps=46))
        fatal = None
        resumed = begin(f"killed-{number}", left_behind, steps=46)
        run(resumed)
        assert_same(resumed.trainer.get_state(), whole.trainer.get_state())
        assert resumed.curves.rollbacks == whole.curves.rollbacks
        assert resumed.curves.episodes == whole.curves.episodes
