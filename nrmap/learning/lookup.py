"""Which file holds the policy that some settings describe."""

from pathlib import Path

from nrmap.errors import NrmapError, unknown_choice
from nrmap.layout import POLICY_FILE, Layout
from nrmap.learning.settings import TrainSettings
from nrmap.policy import load_policy


def training_folder(settings: TrainSettings, layout: Layout, parent_sha256: str | None) -> Path:
    """The folder of the run with `settings`, its parent's policy having the given hash."""
    identity = settings.identity(parent_sha256)
    return layout.training(game=settings.env.game, method=settings.method, seed=settings.seed, identity=identity)


def trained_policy(settings: TrainSettings, layout: Layout) -> Path:
    """The policy file of `settings`; NrmapError when it, or the parent it starts from, is not trained yet."""
    parent_sha256 = None if settings.parent is None else load_policy(trained_policy(settings.parent, layout)).sha256
    path = training_folder(settings, layout, parent_sha256) / POLICY_FILE
    if not path.is_file():
        raise NrmapError(
            f"no trained policy {settings.label} with these settings under {layout.outputs}: "
            f"train it with the same options to `python -m train`, or name a file with policy=FILE"
        )
    return path


def reference_policy(settings: TrainSettings, layout: Layout) -> Path:
    """The reference policy of the game, method and seed of `settings`; NrmapError naming those there are."""
    path = layout.reference(game=settings.env.game, method=settings.method, seed=settings.seed) / POLICY_FILE
    if not path.is_file():
        there = [str(found.parent.relative_to(layout.references)) for found in layout.references.rglob(POLICY_FILE)]
        raise unknown_choice("reference policy", settings.label, there)
    return path
