"""stable-baselines3 and sb3-contrib: a zip with a state dict in `policy.pth` and JSON in `data`.

The JSON holds pickles as text, under ":serialized:". They are never decoded.
"""

import re
from typing import Any

from nrmap.policies.formats.layers import Keys, ReadNetwork, matching
from nrmap.policies.formats.reading import load_torch, open_zip, read_json, tensors_of
from nrmap.policies.network import STATE_SCALE
from nrmap.support.errors import check, shortened


def _cnn(folder: str) -> tuple[tuple[str, ...], str]:
    return tuple(
        f"{folder}features_extractor.cnn.{number}" for number in (0, 2, 4)
    ), f"{folder}features_extractor.linear.0"


_CRITIC = ("value_net.", "vf_features_extractor.")
KEYS = {
    "dqn": Keys(*_cnn("q_net."), "q_net.q_net.0", unused=("q_net_target.",)),
    "qrdqn": Keys(
        *_cnn("quantile_net."), "quantile_net.quantile_net.0", head="quantiles", unused=("quantile_net_target.",)
    ),
    # Beside `pi_features_extractor`, `features_extractor` is a second name of the same weights.
    "actor": Keys(*_cnn("pi_"), "action_net", outputs="logits", unused=(*_CRITIC, "features_extractor.")),
    "shared_actor": Keys(*_cnn(""), "action_net", outputs="logits", unused=_CRITIC),
}


def read(data: bytes) -> ReadNetwork:
    """Read a zip with a DQN, PPO or A2C, or a QR-DQN of sb3-contrib, each with a CnnPolicy.

    The outputs of PPO and A2C are logits. Raises NrmapError for another algorithm, network or file.
    """
    members = open_zip(data)
    for name in ("policy.pth", "data"):
        check(name in members, f"its zip has no {name}: expected a file that model.save() of stable-baselines3 wrote")
    settings = read_json(members["data"])
    tensors = tensors_of(load_torch(members["policy.pth"]))
    keys = matching(KEYS.values(), tensors)
    algorithm = next(name for name, table in KEYS.items() if table is keys)
    if keys.outputs == "logits":
        algorithm = "ppo" if "clip_range" in settings else "a2c"
    kwargs = _part(settings, "policy_kwargs")
    extractor = str(kwargs.get("features_extractor_class", "NatureCNN"))
    default = re.fullmatch(r"(<class 'stable_baselines3\.[\w.]+\.)?NatureCNN('>)?", extractor)
    check(bool(default), f"its features_extractor_class is {shortened(extractor)}: expected NatureCNN, the default")
    normalized = kwargs.get("normalize_images", True)
    check(isinstance(normalized, bool), f"its normalize_images is {shortened(normalized)}: expected true or false")
    actions = _part(settings, "action_space")
    kind, number = str(actions.get(":type:", "Discrete")), str(actions.get("n", ""))
    discrete = re.fullmatch(r"(<class '[\w.]+\.)?Discrete('>)?", kind) and re.fullmatch(r"\d{0,9}", number)
    check(bool(discrete), f"its action_space is {shortened(kind)} of {shortened(number)}: expected Discrete")
    shape = _part(settings, "observation_space").get("_shape", [])
    check(isinstance(shape, list), f"its observation_space has _shape {shortened(shape)}: expected a list of sides")
    return ReadNetwork(
        algorithm,
        tensors,
        keys,
        eyes="sb3",
        input_scale=STATE_SCALE if normalized else None,
        seed=settings.get("seed"),
        agent_steps=settings.get("num_timesteps", 0),
        sides=tuple(shape[1:]),
        actions=int(number) if number else None,
    )


def _part(settings: dict[str, Any], name: str) -> dict[str, Any]:
    part = settings.get(name)
    return part if isinstance(part, dict) else {}
