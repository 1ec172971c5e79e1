"""Identities of results: hashes of a stage's settings, inputs and version."""

from typing import Any

from nrmap.support.files import identity_of

# Raise a stage's version when the same settings and inputs give another result, so that old results are not reused.
VERSIONS = {"states": 2, "pool": 1, "evaluation": 2, "baselines": 2, "ablation": 1, "maps": 3}


def stage_identity(stage: str, **settings: Any) -> str:
    """The identity of the result of `stage` for these settings and inputs."""
    return identity_of({"stage": stage, "version": VERSIONS[stage], **settings})
