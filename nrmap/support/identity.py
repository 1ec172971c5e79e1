"""What a stage's result is named by: its settings, its inputs, and the version of what makes it."""

from typing import Any

from nrmap.support.files import identity_of

# Raised whenever the same settings and inputs come to give another result: what was made before is then
# left alone, and made anew when it is asked for.
VERSIONS = {"states": 2, "pool": 1, "evaluation": 2, "baselines": 2, "ablation": 1, "maps": 3}


def stage_identity(stage: str, **what: Any) -> str:
    """The name of the result of `stage` with these settings and inputs."""
    return identity_of({"stage": stage, "version": VERSIONS[stage], **what})
