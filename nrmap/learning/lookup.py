"""Find the policy file of given settings."""

from dataclasses import asdict
from pathlib import Path

import torch

from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.policies.network import NetworkSpec
from nrmap.policies.policy import Policy, PolicyCard, load_policy
from nrmap.support.errors import NrmapError, check, named, unknown_choice
from nrmap.support.layout import POLICY_FILE, Layout


def training_folder(settings: TrainSettings, layout: Layout, parent_sha256: str | None) -> Path:
    """Return the folder of the run with `settings`.

    `parent_sha256` is the hash of its parent policy, None without one.
    """
    identity = settings.identity(parent_sha256)
    return layout.of_policy(
        "train", game=settings.env.game, method=settings.method, seed=settings.seed, identity=identity
    )


def trained_policy(settings: TrainSettings, layout: Layout) -> Path:
    """Return the path of the trained policy file of `settings`.

    Raises NrmapError if the file is missing, damaged or of other settings, and if its parent is missing or does not
    fit.
    """
    parent_sha256 = None
    if settings.parent is not None:
        parent = settings.parent
        path = Path(parent.path) if isinstance(parent, PolicyFile) else trained_policy(parent, layout)
        parent_sha256 = load_parent(settings, path).sha256
    policy_path = training_folder(settings, layout, parent_sha256) / POLICY_FILE
    if not policy_path.is_file():
        raise NrmapError(
            f"no trained policy {settings.label} with these settings under {layout.outputs}: "
            f"train it with the same options to `python -m train`, or name a file with policy=FILE"
        )
    check_trained(policy_path, settings.identity(parent_sha256))
    return policy_path


def check_trained(path: Path, identity: str) -> PolicyCard:
    """Return the card of the policy file `path`.

    Raises NrmapError as `load_policy` does, and if the policy is not of the settings with that `identity`.
    """
    with named(after="; remove it to train it anew"):
        card = load_policy(path).card
        check(card.identity == identity, f"{path} is the policy of other settings, {card.method} seed {card.seed}")
    return card


def load_parent(settings: TrainSettings, path: Path, device: str | torch.device = "cpu") -> Policy:
    """Load the policy file `path` as the parent of a run with `settings`.

    Raises NrmapError if `load_policy` does, or if the game, environment or network differs from `settings`.
    """
    policy = load_policy(path, device)
    spec = policy.network.spec
    fitting = NetworkSpec(*settings.env.state_shape, actions=spec.actions, dueling=settings.dueling)
    theirs = {"outputs": policy.outputs, **asdict(spec), **asdict(policy.env)}
    ours = {"outputs": "q_values", **asdict(fitting), **asdict(settings.env)}
    differences = [f"{name}={value} instead of {ours[name]}" for name, value in theirs.items() if value != ours[name]]
    check(not differences, f"cannot start from {path}: {policy.label} has {', '.join(differences)}")
    return policy


def reference_policy(settings: TrainSettings, layout: Layout, *, scale: str) -> Path:
    """Return the path of the reference policy file for `scale` and the game, method and seed of `settings`.

    Raises NrmapError if the file is missing, damaged or of another game, method or seed.
    """
    game, method, seed = settings.env.game, settings.method, settings.seed
    path = layout.reference(scale=scale, game=game, method=method, seed=seed) / POLICY_FILE
    if not path.is_file():
        there = [str(found.parent.relative_to(layout.references)) for found in layout.references.rglob(POLICY_FILE)]
        raise unknown_choice("reference policy", f"{scale}/{settings.label}", there)
    label = load_policy(path).label
    check(label == settings.label, f"{path} is of {label}: expected {settings.label}")
    return path
