"""Identities of results: hashes of a stage's settings, inputs and version."""

from dataclasses import fields, is_dataclass
from typing import Any

from nrmap.support.files import identity_of

# Raise a stage's version when the same settings and inputs give another result, so that old results are not reused.
VERSIONS = {"states": 2, "pool": 1, "evaluation": 2, "baselines": 2, "attacks": 1, "ablation": 1, "maps": 3}


def stage_identity(stage: str, /, **settings: Any) -> str:
    """Return the identity of the result of `stage`, a key of `VERSIONS`, for these settings and inputs.

    Raises ValueError and TypeError as `identity_of` does.
    """
    return identity_of({"stage": stage, "version": VERSIONS[stage], **settings})


# Settings that came after published policies: left out of files and identities at their defaults.
_LATER = {
    "inner_attack", "rollback_every", "rollback_ratio", "rollback_slack", "anneal_steps", "n_step_final",
    "discount_final", "average_from",
    # The eyes of other libraries.
    "pooling", "grey_after_resize", "interpolation", "pad_columns", "crop_top", "crop_bottom", "transposed",
    "newest_first", "stack_fill", "noop_min", "fire_reset", "first_actions", "life_loss",
    # Categorical heads, imported policies.
    "atoms", "source",
}  # fmt: skip
_RECORDED_NAMES = {"max_repeat": "longest_repeat"}


def recorded(settings: Any) -> Any:
    """Convert settings to the form that files and identities contain.

    A dataclass becomes a dictionary, a tuple a list, and so do the values in them. Keys are field names, except those
    in `_RECORDED_NAMES`. Fields in `_LATER` are left out at their defaults, so that older files and identities stay
    valid. Other values are returned unchanged.
    """
    if isinstance(settings, tuple):
        return [recorded(each) for each in settings]
    if not is_dataclass(settings):
        return settings
    return {
        _RECORDED_NAMES.get(field.name, field.name): recorded(getattr(settings, field.name))
        for field in fields(settings)
        if field.name not in _LATER or getattr(settings, field.name) != field.default
    }
