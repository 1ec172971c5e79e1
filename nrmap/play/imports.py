"""Import policies of other libraries: convert the file once, and play a few episodes to check the result."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nrmap.atari.episode_seeds import EVALUATION_STREAM, episode_seeds
from nrmap.play.rollout import env_of, greedy, play
from nrmap.policies.formats import convert
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.support.arguments import checked
from nrmap.support.errors import check
from nrmap.support.layout import POLICY_FILE, Layout
from nrmap.support.locks import locked
from nrmap.support.progress import Progress
from nrmap.support.schema import validated

log = logging.getLogger(__name__)

EPISODES = 3
# A mean over so few episodes varies. A wrong preprocessing usually costs more than this fraction of |expect|.
LARGE_FALL = 0.3


@checked
def import_policy(
    reference: str,
    env: str | None = None,
    *,
    seed: int | None = None,
    input_scale: float | None = None,
    expect: float | None = None,
    env_settings: Mapping[str, Any] | None = None,
    outputs: str | Path = "outputs",
    device: str | torch.device = "cpu",
) -> Policy:
    """Convert another library's policy file, such as "sb3:FILE.zip", to a Policy, and keep it under `outputs`.

    docs/agents.md lists the formats; no code in the file runs. `env`, the game, and `input_scale`, the factor from
    states in [0, 255] to the network's own input, are required if the file lacks them. `seed` only labels the policy
    (None: the file's, else 0). `env_settings` override fields of EnvSpec in the format's usual preprocessing; the key
    `eyes` picks another preset. The policy is returned on `device`.

    On the first import the agent plays 3 clean episodes; its card keeps their returns as `clean_returns`. Every import
    logs their mean. The line is a warning if the mean is more than 30% below `expect`, a return of the original agent,
    and the step limit ended none of the episodes.

    Raises NrmapError for a file that is missing or not of its format, for arguments that are missing or contradict the
    file, and for a network that nrmap cannot describe or that does not fit the game. Raises NrmapError if the policy
    cannot be written, if the kept one is damaged, or if there is no such `device`.
    """
    check(outputs != "", "outputs='': expected a folder, '.' for this one")
    policy = convert(reference, game=env, seed=seed, input_scale=input_scale, env_settings=env_settings)
    return load_policy(ensure_imported(policy, Path(outputs), expect), device)


def ensure_imported(policy: Policy, outputs: Path, expect: float | None = None) -> Path:
    """Return the path of a converted policy under `outputs`, and make the file if it is missing; see `import_policy`.

    Raises NrmapError if the file is damaged, of another policy or cannot be written, and as `env_of` and `locked` do.
    """
    card, game = policy.card, policy.env.game
    folder = Layout(outputs).of_policy(
        "imported", game=game, method=card.method, seed=card.seed, identity=card.identity
    )
    path = folder / POLICY_FILE
    if not os.path.exists(path):  # False, unlike Path.exists, for a name that no file can have
        with locked(folder / f".{POLICY_FILE}.lock", f"waiting for another process to write {path}"):
            if not path.exists():
                env = env_of(policy)
                with Progress(f"{policy.label}: {EPISODES} clean episodes", unit="steps") as progress:
                    seeds = episode_seeds(env, 0, EPISODES, EVALUATION_STREAM)
                    episodes = play(greedy(policy), env, seeds, num_envs=EPISODES, progress=progress.update)
                card.results["clean_returns"] = [episode.total_reward for episode in episodes]
                card.results["cut_off"] = sum(episode.truncated for episode in episodes)
                save_policy(path, policy)
    kept = load_policy(path).card
    check(kept.identity == card.identity, f"{path} holds another policy, {kept.identity}: remove it to import anew")
    results = kept.results
    returns = validated(list[float], results.get("clean_returns"), f"{path}: card.results.clean_returns")
    check(bool(returns), f"{path}: card.results.clean_returns is empty")
    played = f"{policy.label} returned {np.mean(returns):.4g} on average over {len(returns)} clean episodes"
    if expect is None or results.get("cut_off") or np.mean(returns) >= expect - LARGE_FALL * abs(expect):
        log.info("%s", played)
    else:
        log.warning(
            "%s, not %.4g: check the scaling of its states (input_scale=), swapped axes, crop and pooling (env.eyes=), "
            "and its set of actions (env.full_action_space=)", played, expect,
        )  # fmt: skip
    return path
