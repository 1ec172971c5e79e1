"""Maps of the non-robust features of deep reinforcement-learning agents, pixel by pixel.

    import nrmap

    agent = nrmap.Agent(network, state_shape=(4, 84, 84))
    maps = nrmap.compute_maps(agent, states)
    print(maps.sparsity("kmap"))

The names below are the public API. They are imported when first used, so that `import nrmap` and its
submodules load no more than they need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nrmap.api import attack, certify, collect_states, compute_maps, evaluate
    from nrmap.atari.env_spec import EnvSpec
    from nrmap.maps.result import Maps
    from nrmap.play.imports import import_policy
    from nrmap.play.states import RolloutStates
    from nrmap.policies.agent import Agent
    from nrmap.policies.policy import load_policy
    from nrmap.robustness.attacks import Attacked
    from nrmap.statistics.intervals import Estimate
    from nrmap.support.errors import NrmapError
    from nrmap.support.records import Record

__version__ = "0.2.0"

__all__ = [
    "Agent", "Attacked", "EnvSpec", "Estimate", "Maps", "NrmapError", "Record", "RolloutStates", "attack", "certify",
    "collect_states", "compute_maps", "evaluate", "import_policy", "load_policy",
]  # fmt: skip

_MODULES = {
    "Agent": "policies.agent",
    "Attacked": "robustness.attacks",
    "EnvSpec": "atari.env_spec",
    "Estimate": "statistics.intervals",
    "Maps": "maps.result",
    "NrmapError": "support.errors",
    "Record": "support.records",
    "RolloutStates": "play.states",
    "import_policy": "play.imports",
    "load_policy": "policies.policy",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'nrmap' has no attribute {name!r}")
    return getattr(importlib.import_module(f"nrmap.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
