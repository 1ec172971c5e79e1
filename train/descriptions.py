"""One-line summary of a run; shows misplaced overrides at start-up."""

from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.policies.policy import Policy
from nrmap.robustness.perturbations import epsilon_text


def main_settings(settings: TrainSettings, parent: Policy | None) -> str:
    """`160,000 agent steps, 38,000 updates, learning rate 0.0003 to 1e-05, exploration 0.05, …`, from `parent`."""
    learner, exploration, regulariser = settings.learner, settings.exploration, settings.regulariser
    parts = [
        f"{settings.steps:,} agent steps",
        f"{settings.updates:,} updates",
        f"learning rate {_change(learner.learning_rate, learner.learning_rate_final)}",
        f"exploration {_change(exploration.epsilon_initial, exploration.epsilon_final)}",
    ]
    if exploration.epsilon_initial != exploration.epsilon_final:
        parts[-1] += f" over {exploration.decay_steps:,} steps"
    if regulariser is not None:
        first, last = regulariser.ramp_begin, regulariser.ramp_begin + regulariser.ramp_steps
        grows = {"kappa": "κ", "radius": "attack"}[regulariser.ramp_of]
        parts.append(f"κ {regulariser.kappa:g}, attack {epsilon_text(regulariser.attack_epsilon)}")
        parts.append(f"{grows} growing from step {first:,} to {last:,}")
    if parent is None:
        parts.append("from random weights")
    else:
        file = f" ({settings.parent.path})" if isinstance(settings.parent, PolicyFile) else ""
        parts += [f"anchor {settings.anchor:g}", f"from {parent.label}{file}"]
    return ", ".join(parts)


def _change(initial: float, final: float) -> str:
    return f"{initial:g}" if initial == final else f"{initial:g} to {final:g}"
