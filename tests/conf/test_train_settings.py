"""From YAML to settings: everything composes, layers of a scale apply in order, mistakes carry the key to change."""

import copy
import functools
from dataclasses import replace

import pytest
from composed import composed, training

from conf.choices import group_options
from conf.schema import TrainKeys
from conf.train_settings import train_settings
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.eyes import env_with_eyes
from nrmap.learning.settings import PolicyFile
from nrmap.support.errors import NrmapError
from nrmap.support.schema import validated

GROUPS = [(group, option) for group in ("env", "method", "scale", "wandb") for option in group_options(group)]


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_yaml_composes_and_becomes_settings(group, option):
    keys = validated(TrainKeys, composed("train", f"{group}={option}"))
    settings = train_settings(keys)
    chosen = {"env": settings.env.game, "method": settings.method, "scale": keys.scale["name"], "wandb": option}
    assert chosen[group] == option
    solver = settings.regulariser.solver if settings.regulariser else None
    assert solver == {"sa_ddqn": "pgd", "sa_ddqn_ibp": "ibp"}.get(settings.method)


@pytest.mark.parametrize("scale", group_options("scale"))
@pytest.mark.parametrize("method", ["ddqn_continued", "sa_ddqn", "sa_ddqn_ibp"])
def test_fine_tuning_starts_from_the_vanilla_run_of_the_same_scale(scale, method):
    vanilla = training("method=ddqn", f"scale={scale}", "seed=7")
    tuned = training(f"method={method}", f"scale={scale}", "seed=7")
    assert (tuned.parent, vanilla.parent, vanilla.regulariser) == (vanilla, None, None)
    node = composed("train", f"scale={scale}")["scale"]
    solver = "ibp" if method == "sa_ddqn_ibp" else "pgd"
    sizes = {**node, **node["fine_tune"], **node["fine_tune"]["by_solver"][solver]}
    assert (tuned.steps, tuned.anchor) == (sizes["steps"], sizes["anchor"])
    if tuned.regulariser:
        assert tuned.regulariser.ramp_steps == sizes["robust_ramp"]["ramp_steps"]
    assert tuned.learner.learning_rate == {**node["learner"], **sizes["learner"]}["learning_rate"]
    assert tuned.exploration.epsilon_initial == sizes["exploration"]["epsilon_initial"] < 1
    values = copy.deepcopy(composed("train", f"method={method}", f"scale={scale}", "seed=7"))
    values["method"]["start_from"] = "some/file.safetensors"
    tuned_file = train_settings(validated(TrainKeys, values))
    assert tuned_file.parent == PolicyFile("some/file.safetensors")
    assert replace(tuned_file, parent=vanilla) == tuned
    assert tuned_file.identity("a" * 64) == tuned.identity("a" * 64) != tuned_file.identity("b" * 64)


@pytest.mark.parametrize("scale", group_options("scale"))
@pytest.mark.parametrize("method", ["sa_ddqn", "sa_ddqn_ibp"])
def test_from_scratch_a_robust_run_is_the_vanilla_one_plus_its_loss(scale, method):
    vanilla = training("method=ddqn", f"scale={scale}")
    scratch = training(f"method={method}", f"scale={scale}", "method.start_from=scratch")
    assert scratch.parent is None
    if scale == "paper":  # for vanilla as the reference has it, of Freeway
        assert (scratch.exploration.decay_steps, vanilla.exploration.decay_steps) == (1_500_000, 100_000)
        scratch = replace(scratch, exploration=vanilla.exploration)
    assert replace(scratch, method="ddqn", regulariser=None) == vanilla


def test_the_control_differs_from_sa_ddqn_in_the_regulariser_alone():
    robust, control = training("method=sa_ddqn"), training("method=ddqn_continued")
    assert replace(robust, method="ddqn_continued", regulariser=None) == control


def test_settings_of_the_robust_loss_reach_the_run_and_not_its_parent():
    options = ("method=sa_ddqn", "scale=paper")
    tuned, free = training(*options, "scale.anchor=20", "method.regulariser.kappa=0.3"), training(*options)
    assert (tuned.anchor, free.anchor, tuned.regulariser.kappa) == (20.0, 0.0, 0.3)
    assert tuned.parent == free.parent
    assert tuned.regulariser.attack_epsilon == 1 / 255
    assert tuned.regulariser.pgd_step_fraction * tuned.regulariser.pgd_steps == pytest.approx(1)


PGD = "scale.fine_tune.by_solver.pgd"


@pytest.mark.parametrize(
    ("method", "key", "value", "line"),
    [
        ("sa_ddqn", "method.regulariser", None, "=null with method.name=sa_ddqn: expected one with solver: pgd"),
        ("sa_ddqn", "method.regulariser.pgd_steps", 0, "=0: expected at least 1 with solver=pgd"),
        ("sa_ddqn", "scale.steps_per_update", 3, "=3: expected a divisor or a multiple of num_envs="),
        ("sa_ddqn", f"{PGD}.steps", 8000, "=8000: expected more than warm_up_steps=8000"),
        ("sa_ddqn", f"{PGD}.robust_ramp.ramp_steps", 160001, "=160001 from ramp_begin=0 ends"),
        ("sa_ddqn", "scale.replay.capacity", 100, "=100: expected at least 192"),
        ("sa_ddqn", "env.max_agent_steps", 2**31 - 1, "=2147483647: expected at most 536,870,911"),
        ("ddqn", "method.start_from", "vanilla", "=vanilla with method.name=ddqn: expected scratch; use method=ddqn_c"),
        (
            "ddqn_continued",
            "method.start_from",
            "scratch",
            "=scratch with method.name=ddqn_continued: expected a policy",
        ),
    ],
)
def test_values_that_do_not_go_together_are_one_line(method, key, value, line):
    config = copy.deepcopy(composed("train", f"method={method}"))
    *path, last = key.split(".")
    functools.reduce(lambda inner, name: inner[name], path, config)[last] = value
    with pytest.raises(NrmapError) as caught:
        train_settings(validated(TrainKeys, config))
    assert f"{key}{line}" in str(caught.value)


def test_the_last_robust_loss_may_be_the_first_full_one():
    assert training("method=sa_ddqn", f"{PGD}.robust_ramp.ramp_steps=160000").updates > 0
    assert training("scale.steps=8004").updates == 4  # of one last step of 16 environments


def test_single_settings_of_a_preset_of_eyes_may_change():
    assert training("env=Pong", "env.eyes=sa_dqn").env == env_with_eyes("Pong", "sa_dqn")
    changed = training("env=Pong", "env.eyes=sb3", "env.life_loss=plays_on", "env.noop_max=5").env
    assert changed == env_with_eyes("Pong", "sb3", life_loss="plays_on", noop_max=5)
    assert training("env=Pong").env == EnvSpec("Pong", 84, 84)
    assert training("env=Pong", "scale=smoke").env == EnvSpec("Pong", 84, 84, max_agent_steps=300)
