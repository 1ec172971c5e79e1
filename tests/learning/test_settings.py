"""Identities tell results apart, and those of published policies stay."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from commands import ROOT
from composed import training

from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError


def other(value: Any) -> Any:
    """A valid value of the same kind that is not `value`."""
    words = {
        "Freeway": "Breakout", "ddqn": "sa_ddqn", "sa_ddqn": "ddqn", "batch_sum": "per_sample_mean",
        "radius": "kappa", "pgd": "worst_of_path", "rgb": "grey", "area": "linear", "zeros": "first_frame",
        "frame": "none", "plays_on": "restarts",
    }  # fmt: skip
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return words[value]
    return 2 * value or 1 if isinstance(value, int) else value / 2 or 0.5


def test_interval_bounds_take_no_settings_of_pgd(tiny_regulariser):
    with pytest.raises(NrmapError, match=r"^pgd_steps=3: expected 0 with solver=ibp$"):
        tiny_regulariser(solver="ibp", pgd_steps=3)


def test_the_smallest_replay_and_the_shortest_warm_up(tiny_settings):
    """Each of two environments needs n + frame stack + 1 slots, and n + 1 steps for a first return."""
    smallest = {"replay": {"capacity": 2 * (3 + 1 + 1)}, "warm_up_steps": 2 * 4}
    tiny_settings(**smallest)
    with pytest.raises(NrmapError, match="at least 10, an n-step window"):
        tiny_settings(**smallest | {"replay": {"capacity": 9}})
    with pytest.raises(NrmapError, match="= 8, so that a first batch"):
        tiny_settings(**smallest | {"warm_up_steps": 7})


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
    replay = {"capacity": 1000, "anneal_steps": 10, "n_step_final": 1, "discount_final": 0.97}
    options = {"method": "sa_ddqn", "env": {"pooling": "rgb"}, "replay": replay, "parent": tiny_settings()}
    base = tiny_settings(**options, regulariser=tiny_regulariser())
    # The solver does not change alone: the other one knows nothing of PGD's steps.
    bounds = tiny_regulariser(solver="ibp", pgd_steps=0, pgd_step_fraction=0.0)
    others = [base, replace(base, regulariser=None), replace(base, regulariser=bounds)]
    changed = dict(variants(base))
    assert {"seed", "replay.n_step", "env.game", "regulariser.kappa", "learner.double_q"} <= set(changed)
    identities = [settings.identity(None) for settings in (*changed.values(), *others)]
    identities += [base.identity(parent * 64) for parent in "ab"]
    assert len(set(identities)) == len(identities)


REFERENCES = sorted(ROOT.glob("outputs/reference/**/policy.safetensors"))
assert REFERENCES


@pytest.mark.parametrize("path", REFERENCES, ids=str)
def test_reference_policies_keep_their_identity(path):
    """So `python -m train` finds them: settings that came later enter no identity at their defaults."""
    card = load_policy(path).card
    overrides = [f"scale={path.parts[-5]}", f"env={path.parts[-4]}", f"method={card.method}", f"seed={card.seed}"]
    assert training(*overrides).identity(card.parent_sha256) == card.identity


def test_the_identity_is_that_of_the_values(tiny_settings):
    base = tiny_settings()
    # The parent's settings are in the parent's file, whose hash counts.
    assert replace(base, parent=tiny_settings(seed=9)).identity("a") == base.identity("a")
    one, two = (training("method=sa_ddqn", f"method.regulariser.hinge={hinge}") for hinge in ("1", "1.0"))
    assert one.identity("a") == two.identity("a")


def test_the_identity_ignores_machine_and_tracking():
    here = training("method=sa_ddqn")
    for overrides in (("device=cuda", "threads=7"), ("wandb=online", "wandb.group=x"), ("checkpoint_seconds=1",)):
        assert training("method=sa_ddqn", *overrides) == here
