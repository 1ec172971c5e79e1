"""Convert the keys of conf/ to the settings of a training."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import OmegaConf

from conf.choices import as_mapping
from conf.schema import CommandKeys
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.eyes import preset
from nrmap.learning.exploration import ExplorationSpec
from nrmap.learning.learner import LearnerSpec
from nrmap.learning.replay import ReplaySpec
from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.support.schema import SettingError, as_typed, validated

# The solver of every method's regulariser; None: no regulariser.
SOLVERS = {"ddqn": None, "ddqn_continued": None, "sa_ddqn": "pgd", "sa_ddqn_ibp": "ibp"}
# DDQN from the vanilla policy is the control of SA-DDQN by PGD: it has the same steps and the same anchor.
_SOLVER_OF_CONTROLS = "pgd"
# The nodes of `scale` that are a part of the settings.
_PARTS = {"exploration": ExplorationSpec, "replay": ReplaySpec, "learner": LearnerSpec}

Layers = Mapping[str, Mapping[str, Any]]  # nodes by their paths; later ones replace values of earlier ones


def train_settings(keys: CommandKeys) -> TrainSettings:
    """Return the settings of the training that `keys` describe.

    Most values come from the node `scale`. If the training starts from a policy, `scale.fine_tune` overrides some of
    them, and `scale.fine_tune.by_solver.SOLVER` some of these (SOLVER is pgd for methods without a regulariser). If a
    robust training starts from scratch, `scale.robust_from_scratch` overrides some. Raises NrmapError for values that
    do not go together, for a run without updates, and for one that ends before the ramp of its robust loss.
    """
    _check_method(keys.method)
    name, start_from, regulariser = (keys.method[key] for key in ("name", "start_from", "regulariser"))
    fine_tune, solver = keys.scale["fine_tune"], SOLVERS[name] or _SOLVER_OF_CONTROLS
    layers = {"scale": keys.scale}
    parent: TrainSettings | PolicyFile | None = None
    if start_from == "vanilla":  # the parent itself has no parent
        from_scratch = {"scale": {**keys.scale, "anchor": 0.0}}
        parent = _settings(keys, from_scratch, method="ddqn", regulariser=None, parent=None)
    elif start_from != "scratch":
        parent = PolicyFile(start_from)
    if parent is not None:
        layers |= {"scale.fine_tune": fine_tune, f"scale.fine_tune.by_solver.{solver}": fine_tune["by_solver"][solver]}
    elif regulariser is not None:
        layers |= {"scale.robust_from_scratch": keys.scale["robust_from_scratch"]}
    return _settings(keys, layers, method=name, regulariser=regulariser, parent=parent)


def env_spec(keys: CommandKeys) -> EnvSpec:
    """Return the environment of `keys`, with the values of the preset `eyes` for null keys.

    Raises NrmapError for values that do not go together.
    """
    given = {key: value for key, value in keys.env.items() if key not in ("literature", "eyes") and value is not None}
    return validated(EnvSpec, {**preset(keys.env["eyes"], keys.env["game"]), **given}, "env")


def _check_method(method: Mapping[str, Any]) -> None:
    name, start_from, regulariser = method["name"], method["start_from"], method["regulariser"]
    solver = None if regulariser is None else regulariser["solver"]
    expected = f"one with solver: {SOLVERS[name]}" if SOLVERS[name] else f"null, {name} has none"
    if solver != SOLVERS[name]:
        given = f"={as_typed(regulariser)} with method.name={name}"
        raise SettingError("method.regulariser", f"{given}: expected {expected}")
    if name == "ddqn" and start_from != "scratch":
        expected = "scratch; use method=ddqn_continued"
    elif name == "ddqn_continued" and start_from == "scratch":
        expected = "a policy; use method=ddqn"
    else:
        return
    raise SettingError("method.start_from", f"={as_typed(start_from)} with method.name={name}: expected {expected}")


def _settings(
    keys: CommandKeys,
    layers: Layers,
    *,
    method: str,
    regulariser: Mapping[str, Any] | None,
    parent: TrainSettings | PolicyFile | None,
) -> TrainSettings:
    """Return the settings with the values of `layers`; an error names the key in the last layer that has the key."""
    scale = as_mapping(OmegaConf.merge(*layers.values()))
    ramp = scale["robust_ramp"]
    robust = None if regulariser is None else validated(RegulariserSpec, {**regulariser, **ramp}, "method.regulariser")
    names = {field.name for field in fields(TrainSettings)}
    try:
        settings = TrainSettings(
            **{key: value for key, value in scale.items() if key in names}
            | {key: validated(kind, scale[key], key) for key, kind in _PARTS.items()},
            env=env_spec(keys), method=method, seed=keys.seed, regulariser=robust, parent=parent,
        )  # fmt: skip
        _check_that_it_learns(settings)
    except SettingError as error:
        key = error.key
        paths = [path for path, layer in layers.items() if _has(layer, key.split("."))]
        raise SettingError(f"{paths[-1]}.{key}" if paths else key, error.problem) from None
    return settings


def _has(node: Any, path: list[str]) -> bool:
    return not path or (isinstance(node, Mapping) and path[0] in node and _has(node[path[0]], path[1:]))


def _check_that_it_learns(settings: TrainSettings) -> None:
    """Raise SettingError for a run without updates, and for one that ends before the ramp of its robust loss."""
    if settings.updates == 0:
        expected = f"more than warm_up_steps={settings.warm_up_steps}, or nothing is learned"
        raise SettingError("steps", f"={settings.steps}: expected {expected}")
    if settings.regulariser is not None:
        begin, steps = settings.regulariser.ramp_begin, settings.regulariser.ramp_steps
        if begin + steps > settings.steps:
            ends = f"{steps} from ramp_begin={begin} ends after steps={settings.steps}"
            raise SettingError("robust_ramp.ramp_steps", f"={ends}: expected the full robust loss before the end")
