"""The settings that determine a trained policy, as one frozen value with an identity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nrmap.atari.envs import EnvSpec
from nrmap.learning.exploration import ExplorationSpec
from nrmap.learning.learner import LearnerSpec
from nrmap.learning.replay import ReplaySpec
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.policies.network import NetworkSpec
from nrmap.support.errors import check, check_fields, unknown_choice
from nrmap.support.files import identity_of
from nrmap.support.identity import recorded
from nrmap.support.mappings import build, merged, part


@dataclass(frozen=True)
class PolicyFile:
    """A policy file to start from. Its content is part of the run's identity, its path is not."""

    path: str


@dataclass(frozen=True)
class TrainSettings:
    """One training run. `steps` and `warm_up_steps` are agent steps over all environments.

    There is one update every `steps_per_update` agent steps. `parent` is the policy that the run
    starts from, as the settings that train it or as a file; None starts from random weights. `anchor`
    weights `anchor_loss`, the distance from the parent's advantages.
    """

    env: EnvSpec
    method: str
    seed: int
    steps: int
    num_envs: int
    steps_per_update: int
    warm_up_steps: int
    dueling: bool
    clip_rewards: bool
    life_loss_ends_return: bool
    exploration: ExplorationSpec
    replay: ReplaySpec
    learner: LearnerSpec
    regulariser: RegulariserSpec | None
    parent: "TrainSettings | PolicyFile | None"
    anchor: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, 1, "steps", "num_envs", "steps_per_update")
        check_fields(self, 0, "seed", "anchor")
        check(self.anchor == 0 or self.parent is not None, f"anchor={self.anchor}: expected 0 without a parent")
        NetworkSpec(*self.env.state_shape, actions=1, dueling=self.dueling)  # checks the size of the screen
        first_returns = (self.replay.n_step + 1) * self.num_envs
        slots = self.replay.smallest_ring(self.env.frame_stack) * self.num_envs
        check(
            self.replay.capacity >= slots,
            f"capacity={self.replay.capacity}: expected at least {slots}, an n-step window for each of "
            f"{self.num_envs} environments",
        )
        check(
            self.warm_up_steps >= first_returns,
            f"warm_up_steps={self.warm_up_steps}: expected at least (n_step + 1) · num_envs = {first_returns}, "
            "so that a first batch can be drawn",
        )
        check(
            self.num_envs % self.steps_per_update == 0 or self.steps_per_update % self.num_envs == 0,
            f"steps_per_update={self.steps_per_update}: expected a divisor or a multiple of num_envs={self.num_envs}",
        )

    @property
    def label(self) -> str:
        """`Freeway/sa_ddqn/seed0`."""
        return f"{self.env.game}/{self.method}/seed{self.seed}"

    @property
    def updates(self) -> int:
        """The number of updates. Warm-up and run end with a whole step of all environments."""
        begin, end = (-(-steps // self.num_envs) * self.num_envs for steps in (self.warm_up_steps, self.steps))
        return max(end // self.steps_per_update - begin // self.steps_per_update, 0)

    def identity(self, parent_sha256: str | None) -> str:
        """The hash of these settings and of the parent policy, whose hash covers the parent's settings."""
        own = {**recorded(self), "parent": None}
        if not self.anchor:
            del own["anchor"]  # cards have it, identities do not: policies from before it was a setting keep their ID
        return identity_of({"stage": "train", "settings": own, "parent_sha256": parent_sha256})


# The solver of every method's regulariser; None: no regulariser.
METHODS = {"ddqn": None, "ddqn_continued": None, "sa_ddqn": "pgd", "sa_ddqn_ibp": "ibp"}
# Plain DDQN from the vanilla policy is the control of SA-DDQN by PGD: it has the same steps and the same anchor.
_SOLVER_OF_CONTROLS = "pgd"
_METHOD_KEYS = {
    "name": "a method", "start_from": "vanilla, scratch or a file", "regulariser": "null, or keys and values",
}  # fmt: skip
_PARTS_OF_SCALE = {"exploration": ExplorationSpec, "replay": ReplaySpec, "learner": LearnerSpec}
_RAMP_KEYS = ("ramp_begin", "ramp_steps")
_POLICY_SUFFIX = ".safetensors"


def train_settings(config: Mapping[str, Any]) -> TrainSettings:
    """The settings of a run from a plain mapping with the nodes of conf/train.yaml.

    `config["scale"]` has the values of a training from scratch. `fine_tune` replaces some of them for a
    training that starts from a policy, and its `by_solver` for one solver only; `robust_from_scratch`
    does so for a robust training from scratch. Raises NrmapError for an unknown method, an unknown or
    missing key, a value out of range, a run without updates, and a run that ends before its ramp.
    """
    method = part(config, "method", "config")
    _check_method(method)
    name, start_from, regulariser = method["name"], method["start_from"], method["regulariser"]
    scale = part(config, "scale", "config")
    changes = {key: part(scale, key, "scale") for key in ("fine_tune", "robust_from_scratch")}
    scale = {key: value for key, value in scale.items() if key not in changes}
    parent: TrainSettings | PolicyFile | None = None
    if start_from == "vanilla":
        from_scratch = {**scale, "anchor": 0.0}  # the parent has no parent
        parent = _settings({**config, "scale": from_scratch}, name="ddqn", regulariser=None, parent=None)
    elif start_from != "scratch":
        parent = PolicyFile(start_from)
    if parent is not None:
        scale = _fine_tuned(scale, changes["fine_tune"], METHODS[name] or _SOLVER_OF_CONTROLS)
    elif regulariser is not None:
        scale = merged(scale, changes["robust_from_scratch"], "scale.robust_from_scratch")
    return _settings({**config, "scale": scale}, name=name, regulariser=regulariser, parent=parent)


def _check_method(method: Mapping[str, Any]) -> None:
    for key in method:
        if key not in _METHOD_KEYS:
            raise unknown_choice("key of method", key, _METHOD_KEYS)
    for key, expected in _METHOD_KEYS.items():
        check(key in method, f"method.{key} is missing: expected {expected}")
    name, start_from, regulariser = method["name"], method["start_from"], method["regulariser"]
    if name not in METHODS:
        raise unknown_choice("method", name, METHODS)
    if METHODS[name] is None:
        fits, expected = regulariser is None, "none"
    else:
        fits = isinstance(regulariser, Mapping) and regulariser.get("solver") == METHODS[name]
        expected = f"one with solver: {METHODS[name]}"
    check(fits, f"method.regulariser={regulariser!r} with method.name={name}: expected {expected}")
    if start_from not in ("vanilla", "scratch") and not str(start_from).endswith(_POLICY_SUFFIX):
        raise unknown_choice("start_from", start_from, ("vanilla", "scratch", f"FILE{_POLICY_SUFFIX}"))
    given = f"method.start_from={start_from} with method.name={name}"
    check(name != "ddqn" or start_from == "scratch", f"{given}: expected scratch; use method=ddqn_continued")
    check(name != "ddqn_continued" or start_from != "scratch", f"{given}: expected a policy; use method=ddqn")


def _fine_tuned(scale: Mapping[str, Any], fine_tune: Mapping[str, Any], solver: str) -> dict[str, Any]:
    """The scale's values for a training that starts from a policy."""
    where = "scale.fine_tune"
    of_solver = part(part(fine_tune, "by_solver", where), solver, f"{where}.by_solver")
    of_all = {key: value for key, value in fine_tune.items() if key != "by_solver"}
    return merged(merged(scale, of_all, where), of_solver, f"{where}.by_solver.{solver}")


def _check_that_it_learns(settings: TrainSettings) -> None:
    """Reject runs without updates and runs that end before their ramp; benchmarks do not come through here."""
    check(
        settings.updates > 0,
        f"steps={settings.steps}: expected more than warm_up_steps={settings.warm_up_steps}, or nothing is learned",
    )
    if settings.regulariser is not None:
        begin, steps = settings.regulariser.ramp_begin, settings.regulariser.ramp_steps
        check(
            begin + steps <= settings.steps,
            f"robust_ramp: ramp_begin={begin} and ramp_steps={steps} end after steps={settings.steps}: "
            "expected the full robust loss before the end of the training",
        )


def _settings(
    config: Mapping[str, Any],
    *,
    name: str,
    regulariser: Mapping[str, Any] | None,
    parent: TrainSettings | PolicyFile | None,
) -> TrainSettings:
    scale = dict(config["scale"])
    for not_of_training in ("name", "analysis", "robust_loss"):  # the method refers to the last
        scale.pop(not_of_training, None)
    ramp = part(scale, "robust_ramp", "scale")
    del scale["robust_ramp"]
    parts: dict[str, Any] = {
        "env": env_spec(config["env"]),
        **{key: build(kind, part(scale, key, "scale"), f"scale.{key}") for key, kind in _PARTS_OF_SCALE.items()},
        "regulariser": None if regulariser is None else _regulariser(regulariser, ramp),
    }
    values = {**scale, **parts, "method": name, "seed": config["seed"], "parent": parent}
    settings: TrainSettings = build(TrainSettings, values, "scale")
    _check_that_it_learns(settings)
    return settings


def _regulariser(regulariser: Mapping[str, Any], ramp: Mapping[str, Any]) -> RegulariserSpec:
    for key in ramp:
        if key not in _RAMP_KEYS:
            raise unknown_choice("key of scale.robust_ramp", key, _RAMP_KEYS)
    for key in _RAMP_KEYS:
        check(key in ramp, f"scale.robust_ramp.{key} is missing: expected a whole number")
        check(key not in regulariser, f"method.regulariser.{key}: expected it under scale.robust_ramp")
    spec: RegulariserSpec = build(RegulariserSpec, {**regulariser, **ramp}, "method.regulariser")
    return spec


def env_spec(node: Mapping[str, Any]) -> EnvSpec:
    """The environment of the node `env`; only other nodes refer to its `literature`."""
    return build(EnvSpec, {key: value for key, value in node.items() if key != "literature"}, "env")
