"""The modules that `import nrmap` loads, and the names that it offers."""

import subprocess
import sys

import nrmap

SLOW = ("ale_py", "gymnasium", "matplotlib", "wandb", "hydra")


def modules_after(program: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `program`."""
    listed = subprocess.run(
        [sys.executable, "-c", f"{program}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def test_importing_nrmap_loads_nothing_slow_until_it_is_needed() -> None:
    assert not {"torch", "numpy", *SLOW} & modules_after("import nrmap")
    assert not set(SLOW) & modules_after("from nrmap import Agent, attack, certify, compute_maps, load_policy, Maps")


def test_every_public_name_is_there() -> None:
    assert all(hasattr(nrmap, name) for name in nrmap.__all__)
