"""From YAML to settings: everything composes, mistakes are named, identities tell results apart."""

import copy
import functools
import re
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from commands import ROOT
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from conf.choices import group_options
from nrmap.learning.settings import PolicyFile, TrainSettings, train_settings
from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError
from nrmap.support.mappings import build, merged
from nrmap.support.tracking import TrackingSpec


@functools.cache
def composed(*overrides: str) -> dict[str, Any]:
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("train", overrides=[*overrides])
    return OmegaConf.to_container(config, resolve=True)


def settings_of(*overrides: str) -> TrainSettings:
    return train_settings(composed(*overrides))


GROUPS = [(group, option) for group in ("env", "method", "scale", "wandb") for option in group_options(group)]


@pytest.mark.parametrize(("group", "option"), GROUPS)
def test_every_yaml_composes_and_becomes_settings(group, option):
    config = composed(f"{group}={option}")
    settings = train_settings(config)
    assert isinstance(settings, TrainSettings)
    assert isinstance(build(TrackingSpec, config["wandb"], "wandb"), TrackingSpec)
    if group == "env":
        assert settings.env.game == option
    if group == "method":
        assert settings.method == option
        solver = settings.regulariser.solver if settings.regulariser else None
        assert solver == {"sa_ddqn": "pgd", "sa_ddqn_ibp": "ibp"}.get(option)
    if group == "scale":
        assert config["scale"]["name"] == option


@pytest.mark.parametrize("scale", group_options("scale"))
@pytest.mark.parametrize("method", ["ddqn_continued", "sa_ddqn", "sa_ddqn_ibp"])
def test_fine_tuning_starts_from_the_vanilla_run_of_the_same_scale(scale, method):
    vanilla = settings_of("method=ddqn", f"scale={scale}", "seed=7")
    tuned = settings_of(f"method={method}", f"scale={scale}", "seed=7")
    assert tuned.parent == vanilla
    assert vanilla.parent is None
    assert vanilla.regulariser is None
    node = copy.deepcopy(composed(f"scale={scale}")["scale"])
    by_solver = node["fine_tune"].pop("by_solver")["ibp" if method == "sa_ddqn_ibp" else "pgd"]
    sizes = merged(merged(node, node["fine_tune"], "fine_tune"), by_solver, "by_solver")
    assert (tuned.steps, tuned.anchor) == (sizes["steps"], sizes["anchor"])
    if tuned.regulariser:
        assert tuned.regulariser.ramp_steps == sizes["robust_ramp"]["ramp_steps"]
    assert tuned.learner.learning_rate == sizes["learner"]["learning_rate"]
    assert tuned.exploration.epsilon_initial == sizes["exploration"]["epsilon_initial"] < 1
    tuned_file = settings_of(f"method={method}", f"scale={scale}", "seed=7", "method.start_from=some/file.safetensors")
    assert tuned_file.parent == PolicyFile("some/file.safetensors")
    assert replace(tuned_file, parent=vanilla) == tuned
    assert tuned_file.identity("a" * 64) == tuned.identity("a" * 64) != tuned_file.identity("b" * 64)


@pytest.mark.parametrize("scale", group_options("scale"))
@pytest.mark.parametrize("method", ["sa_ddqn", "sa_ddqn_ibp"])
def test_from_scratch_a_robust_run_is_the_vanilla_one_plus_its_loss(scale, method):
    vanilla = settings_of("method=ddqn", f"scale={scale}")
    scratch = settings_of(f"method={method}", f"scale={scale}", "method.start_from=scratch")
    assert scratch.parent is None
    if scale == "paper":
        assert scratch.exploration.decay_steps == 1_500_000
        assert vanilla.exploration.decay_steps == 100_000  # of Freeway, as the reference has it
        scratch = replace(scratch, exploration=vanilla.exploration)
    assert replace(scratch, method="ddqn", regulariser=None) == vanilla


def test_an_anchor_reaches_the_run_and_not_the_parent():
    tuned, free = (settings_of("method=sa_ddqn", "scale=paper", *more) for more in (["scale.anchor=20"], []))
    assert (tuned.anchor, free.anchor) == (20.0, 0.0)
    assert tuned.parent == free.parent
    with pytest.raises(NrmapError, match=r"^anchor=20.0: expected 0 without a parent$"):
        settings_of("method=ddqn", "scale.anchor=20.0")


def test_the_control_differs_from_sa_ddqn_in_the_regulariser_alone():
    robust, control = settings_of("method=sa_ddqn"), settings_of("method=ddqn_continued")
    assert replace(robust, method="ddqn_continued", regulariser=None) == control


def test_the_regulariser_holds_the_numbers_of_the_yaml():
    regulariser = settings_of("method=sa_ddqn", "scale=paper", "method.regulariser.kappa=0.3").regulariser
    assert regulariser.kappa == 0.3
    assert regulariser.hinge_reduction == "batch_sum"
    assert regulariser.hold_advantages == 0
    assert regulariser.attack_epsilon == 1 / 255
    assert regulariser.pgd_step_fraction * regulariser.pgd_steps == pytest.approx(1)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("env.game", "Freway", "unknown game 'Freway': did you mean Freeway"),
        ("scale.fine_tune.by_solver.pgd.anchor", -1.0, "anchor=-1.0: expected at least 0"),
        ("method.name", "sadqn", "unknown method 'sadqn': did you mean"),
        ("method.start_from", "vanila", "unknown start_from 'vanila': did you mean vanilla"),
        ("scale.step", 3, "unknown key of scale 'step': did you mean steps"),
        ("method.regulariser.kapa", 1, "unknown key of method.regulariser 'kapa': did you mean kappa"),
        ("method.regularizer", None, "unknown key of method 'regularizer': did you mean regulariser"),
        ("scale.fine_tune.learner.lr", 1, "unknown key of scale.fine_tune.learner 'lr': choose one of batch_size"),
        ("scale.fine_tune.by_solver.pgd.stps", 1, "unknown key of scale.fine_tune.by_solver.pgd 'stps': did you mean"),
        ("scale.robust_ramp.ramp_stps", 1, "unknown key of scale.robust_ramp 'ramp_stps': did you mean ramp_steps"),
        ("method.regulariser.ramp_steps", 1, "method.regulariser.ramp_steps: expected it under scale.robust_ramp"),
        ("scale.steps", "many", "steps='many': expected a whole number"),
        ("scale.learner.learning_rate", float("nan"), "learning_rate=nan: expected a finite number"),
        ("scale.learner", 3, "scale.learner=3: expected keys and values"),
        ("scale.fine_tune.learner", 3, "scale.fine_tune.learner=3: expected the same kind of value"),
        ("scale.fine_tune", None, "scale.fine_tune=None: expected keys and values"),
        ("scale.fine_tune.by_solver.pgd", None, "scale.fine_tune.by_solver.pgd=None: expected keys and values"),
        ("seed", -1, "seed=-1: expected at least 0"),
        ("scale.num_envs", 0, "num_envs=0: expected at least 1"),
        ("scale.steps_per_update", 3, "steps_per_update=3: expected a divisor or a multiple of num_envs="),
        ("scale.warm_up_steps", 10, "warm_up_steps=10: expected at least"),
        ("scale.warm_up_steps", 320000, "steps=320000: expected more than warm_up_steps=320000, or nothing is learned"),
        ("scale.fine_tune.by_solver.pgd.steps", 8000, "steps=8000: expected more than warm_up_steps=8000"),
        ("scale.fine_tune.by_solver.pgd.robust_ramp.ramp_begin", 110001, "ramp_begin=110001 and ramp_steps=50000 end"),
        ("scale.fine_tune.by_solver.pgd.steps", 49000, "ramp_steps=50000 end after steps=49000: expected the full"),
        ("scale.replay.capacity", 100, "capacity=100: expected at least"),
        ("scale.replay.n_step", 0, "n_step=0: expected at least 1"),
        ("scale.replay.discount", 1.1, "discount=1.1: expected a number from 0 to 1"),
        ("scale.replay.priority_exponent", -1, "priority_exponent=-1.0: expected at least 0"),
        ("scale.learner.batch_size", 0, "batch_size=0: expected at least 1"),
        ("scale.learner.learning_rate", -0.1, "learning_rate=-0.1: expected at least 0"),
        ("scale.learner.decay_from", 2, "decay_from=2.0: expected a number from 0 to 1"),
        ("scale.exploration.epsilon_initial", 2, "epsilon_initial=2.0: expected a number from 0 to 1"),
        ("scale.exploration.max_repeat", 0, "max_repeat=0: expected at least 1"),
        ("method.regulariser.kappa", -1, "kappa=-1.0: expected at least 0"),
        ("method.regulariser.hinge", -1, "hinge=-1.0: expected at least 0"),
        ("method.regulariser.attack_epsilon", 0, "attack_epsilon=0.0: expected 0 < ε ≤ 1"),
        ("method.regulariser.pgd_steps", 0, "pgd_steps=0: expected at least 1"),
        ("method.regulariser.inner_attack", "pdg", "unknown inner_attack 'pdg': did you mean pgd"),
        ("method.regulariser.inner_attack", "n_fgsm", "pgd_steps=2 with inner_attack=n_fgsm: expected 1"),
        ("method.regulariser.rollback_every", -1, "rollback_every=-1: expected at least 0"),
        ("method.regulariser.hinge_reduction", "sum", "hinge_reduction='sum': expected per_sample_mean or batch_sum"),
        ("method.regulariser", None, "method.regulariser=None with method.name=sa_ddqn: expected one with solver: pgd"),
        ("method.regulariser.solver", "ibp", "with method.name=sa_ddqn: expected one with solver: pgd"),
        ("method.name", "ddqn", "with method.name=ddqn: expected none"),
        ("method.name", "sa_ddqn_ibp", "with method.name=sa_ddqn_ibp: expected one with solver: ibp"),
        ("scale.fine_tune.by_solver.pgd.robust_ramp.ramp_steps", 0, "ramp_steps=0: expected at least 1"),
        ("method.regulariser.ramp_initial", 1, "ramp_initial=1.0: expected 0 ≤ fraction < 1"),
        ("method.regulariser.ramp_of", "epsilon", "ramp_of='epsilon': expected radius or kappa"),
        ("env.height", 20, "a 20×84 screen is too small"),
    ],
)
def test_mistakes_are_named_on_one_line(key, value, expected):
    config = copy.deepcopy(composed("method=sa_ddqn"))
    *path, last = key.split(".")
    node = functools.reduce(lambda inner, name: inner[name], path, config)
    node[last] = value
    with pytest.raises(NrmapError) as caught:
        train_settings(config)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


def test_the_last_robust_loss_may_be_the_first_full_one():
    assert settings_of("method=sa_ddqn", "scale.fine_tune.by_solver.pgd.robust_ramp.ramp_steps=160000").updates > 0
    assert settings_of("scale.steps=8004").updates == 4  # of one last step of 16 environments
    with pytest.raises(NrmapError, match="steps=8000: expected more than warm_up_steps=8000"):
        settings_of("scale.steps=8000")


@pytest.mark.parametrize(
    ("method", "start_from", "use"),
    [
        ("ddqn", "vanilla", "expected scratch; use method=ddqn_continued"),
        ("ddqn", "some/file.safetensors", "expected scratch; use method=ddqn_continued"),
        ("ddqn_continued", "scratch", "expected a policy; use method=ddqn"),
    ],
)
def test_a_method_that_cannot_start_there_names_the_one_that_can(method, start_from, use):
    with pytest.raises(NrmapError) as caught:
        settings_of(f"method={method}", f"method.start_from={start_from}")
    assert str(caught.value) == f"method.start_from={start_from} with method.name={method}: {use}"


@pytest.mark.parametrize(
    "key",
    [
        *("scale.fine_tune", "scale.fine_tune.by_solver", "scale.fine_tune.by_solver.pgd", "scale.robust_from_scratch"),
        *("scale.robust_ramp", "scale.robust_ramp.ramp_begin", "scale.exploration"),
        *("method.start_from", "method.regulariser"),
    ],
)
def test_a_missing_part_is_named_by_its_path(key):
    config = copy.deepcopy(composed("method=sa_ddqn"))
    *path, last = key.split(".")
    del functools.reduce(lambda inner, name: inner[name], path, config)[last]
    with pytest.raises(NrmapError, match=rf"^{re.escape(key)} is missing: expected "):
        train_settings(config)


def other(value: Any) -> Any:
    """A valid value of the same kind that is not `value`."""
    words = {
        "Freeway": "Breakout", "ddqn": "sa_ddqn", "sa_ddqn": "ddqn", "batch_sum": "per_sample_mean",
        "radius": "kappa", "pgd": "worst_of_path", "rgb": "grey", "area": "linear", "zeros": "first_frame",
        "frame": "none", "plays_on": "restarts",
    }  # fmt: skip
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    if isinstance(value, float):
        return value / 2 or 0.5
    return words[value]


def with_another_solver(settings: TrainSettings) -> TrainSettings:
    """The solver does not change alone: the other one knows nothing of PGD's steps."""
    assert settings.regulariser is not None
    regulariser = replace(settings.regulariser, solver="ibp", pgd_steps=0, pgd_step_fraction=0.0)
    return replace(settings, regulariser=regulariser)


def test_interval_bounds_take_no_settings_of_pgd(tiny_regulariser):
    with pytest.raises(NrmapError, match=r"pgd_steps=3, pgd_step_fraction=0.5 with solver=ibp: expected neither"):
        tiny_regulariser(solver="ibp", pgd_steps=3)
    with pytest.raises(NrmapError, match=r"solver='cibp': expected pgd or ibp"):
        tiny_regulariser(solver="cibp")


def variants(settings: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every way to change one field of `settings` or of its parts."""
    found: list[tuple[str, Any]] = []
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{path}{field.name}"
        if name in ("parent", "regulariser.solver"):
            continue
        if is_dataclass(value):
            found += [(deep, replace(settings, **{field.name: part})) for deep, part in variants(value, f"{name}.")]
        else:
            found.append((name, replace(settings, **{field.name: other(value)})))
    return found


def test_the_identity_follows_every_field(tiny_settings, tiny_regulariser):
    base = tiny_settings(
        method="sa_ddqn",
        regulariser=tiny_regulariser(),
        parent=tiny_settings(),
        env={"pooling": "rgb"},
        replay={"capacity": 1000, "anneal_steps": 10, "n_step_final": 1, "discount_final": 0.97},
    )
    changed = variants(base)
    assert {"seed", "replay.n_step", "env.game", "regulariser.kappa", "learner.double_q"} <= {
        name for name, _ in changed
    }
    identities = {name: settings.identity(None) for name, settings in changed}
    identities["unchanged"] = base.identity(None)
    identities["without a regulariser"] = replace(base, regulariser=None).identity(None)
    identities["with another solver"] = with_another_solver(base).identity(None)
    identities["with a parent"] = base.identity("a" * 64)
    identities["with another parent"] = base.identity("b" * 64)
    assert len(set(identities.values())) == len(identities)


@pytest.mark.parametrize("path", sorted(ROOT.glob("outputs/reference/**/policy.safetensors")), ids=str)
def test_reference_policies_keep_their_identity(path):
    """So `python -m train` finds them: settings that came later enter no identity at their defaults."""
    card = load_policy(path).card
    overrides = [f"env={path.parts[-4]}", f"method={card.method}", f"seed={card.seed}"]
    assert settings_of(*overrides).identity(card.parent_sha256) == card.identity


def test_the_identity_is_that_of_the_values(tiny_settings):
    base = tiny_settings()
    assert base.identity(None) == tiny_settings().identity(None)
    # The parent's settings are in the parent's file, whose hash counts.
    assert replace(base, parent=tiny_settings(seed=9)).identity("a") == base.identity("a")
    assert settings_of("method=sa_ddqn", "method.regulariser.hinge=1").identity("a") == settings_of(
        "method=sa_ddqn", "method.regulariser.hinge=1.0"
    ).identity("a")


def test_the_identity_ignores_machine_and_tracking():
    here = settings_of("method=sa_ddqn")
    for overrides in (("device=cuda", "threads=7"), ("wandb=online", "wandb.group=x"), ("checkpoint_seconds=1",)):
        there = settings_of("method=sa_ddqn", *overrides)
        assert there == here
        assert there.identity("a") == here.identity("a")
