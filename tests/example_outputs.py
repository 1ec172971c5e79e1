"""An outputs folder as training and analysis write it, from made-up Q-values, episodes and curves.

The library itself writes the files, records and maps. Only the outputs of networks and games are
drawn at random, so that a whole tree takes a second.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analyze.report.sheets import Sheet
from analyze.study import evaluation_inputs
from nrmap.ablation import AblatedChunk
from nrmap.atari.episode_seeds import EVALUATION_STREAM
from nrmap.learning.settings import TrainSettings
from nrmap.maps.episode_maps import EpisodeMaps, save_maps
from nrmap.maps.measures import map_records
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks, policy_fields
from nrmap.maps.sweep import sweep_maps
from nrmap.play.evaluation import GAP_QUANTILES, WORST_CASE, AttackRun, episode_records, rate_record
from nrmap.play.players import EpisodeCounts
from nrmap.play.rollout import Episode
from nrmap.play.states import RolloutStates, SourcePolicy, save_states
from nrmap.policies.network import NetworkSpec, QNetwork
from nrmap.policies.policy import Policy, PolicyCard, load_policy, save_policy
from nrmap.support.files import identity_of, read_json, sha256_of_file, write_bytes, write_json
from nrmap.support.identity import VERSIONS, recorded, stage_identity
from nrmap.support.layout import CURVES_FILE, METRICS_FILE, POLICY_FILE, Layout
from nrmap.support.records import CONSTANT_ACTION, RANDOM_POLICY, Record, write_records
from nrmap.support.runtime import provenance

ACTIONS = ("NOOP", "UP", "DOWN")
PROTOCOL = {"episodes": 20, "run_seed": 0, "stream": EVALUATION_STREAM}
ATTACKS = (
    AttackRun("noise", 1 / 255, 10), AttackRun("pgd-10", 1 / 255, 10), AttackRun("pgd-10", 3 / 255, 10),
    AttackRun("pgd-50", 1 / 255, 5), AttackRun(WORST_CASE, 1 / 255, 10),
)  # fmt: skip


@dataclass(frozen=True)
class Example:
    """The size of the tree and who is in it; in `without_flips` no pixel flips an action, so K is 0."""

    methods: tuple[str, ...] = ("ddqn", "sa_ddqn")
    seeds: tuple[int, ...] = (0, 1)
    num_states: int = 16
    episodes: int = 16
    temperatures: tuple[float, ...] = (0.1, 1.0)
    prefix_sizes: tuple[int, ...] = (4, 8)
    without_flips: tuple[tuple[str, int], ...] = (("sa_ddqn", 1),)
    states_from: tuple[str, ...] = ("own", "pool")
    attacks: tuple[AttackRun, ...] = ATTACKS
    controls: int = 0  # draws of each kind


SMALL = Example(
    seeds=(0,), temperatures=(1.0,), prefix_sizes=(8,), states_from=("own",), without_flips=(("sa_ddqn", 0),)
)


def write_example(outputs: Path, base: TrainSettings, example: Example) -> None:
    """Write the tree under `outputs`; `base` are settings of a small training run."""
    layout = Layout(outputs)
    pool_path = layout.states(game=base.env.game, identity="pool")
    for method, seed in product(example.methods, example.seeds):
        policy = load_policy(write_training(layout, replace(base, method=method, seed=seed)))
        write_evaluation(layout, policy, example)
        paths = {"own": layout.states(game=base.env.game, identity=f"{method}{seed}"), "pool": pool_path}
        for path in paths.values():
            if not path.exists():
                save_states(path, synthetic_states(policy, example))
        for states_from in example.states_from:
            write_maps(layout, policy, paths[states_from], states_from, example)
            for kind in NULL_NETWORKS if example.controls else ():
                for control in null_networks(policy, kind, example.controls, seed=0):
                    write_maps(layout, control, paths[states_from], states_from, example)
    write_baselines(layout, base)


def write_training(layout: Layout, settings: TrainSettings) -> Path:
    """A policy of random weights with its card, settings and curves; returns the policy's path."""
    identity, player = settings.identity(None), {"method": settings.method, "seed": settings.seed}
    folder = layout.of_policy("train", game=settings.env.game, **player, identity=identity)
    torch.manual_seed(_seed(settings.method, settings.seed))
    channels, height, width = settings.env.state_shape
    network = QNetwork(NetworkSpec(channels, height, width, len(ACTIONS), dueling=settings.dueling))
    results = {"updates": 60, "precision": "bfloat16", "recent_mean_return": 21.5, "seconds": 12.5}
    card = PolicyCard(
        **player, agent_steps=settings.steps, identity=identity, settings=recorded(settings), results=results,
        provenance=provenance(),
    )  # fmt: skip
    save_policy(folder / POLICY_FILE, Policy(network, settings.env, card))
    write_json(folder / "settings.json", recorded(settings))
    write_json(folder / CURVES_FILE, made_up_curves(settings))
    return folder / POLICY_FILE


def made_up_curves(settings: TrainSettings) -> dict:
    rng = _rng("curves", settings.method, settings.seed)
    steps = np.linspace(0, settings.steps, 120)[1:].astype(int)
    returns = np.round(30 * (1 - np.exp(-4 * steps / settings.steps)) + rng.normal(0, 2, len(steps)))
    episodes = [
        {"agent_step": int(step), "env": index % 4, "undiscounted_return": max(float(value), 0.0), "length": 23}
        for index, (step, value) in enumerate(zip(steps, returns, strict=True))
    ]
    rows = []
    for index, step in enumerate(steps[::8]):
        row = {
            "agent_step": int(step), "seconds": float(step) / 100, "steps_per_second": 100.0, "episodes": 8 * index,
            "loss": float(np.exp(-index / 8) + 0.05 * rng.random()), "q_mean": float(index / 10), "epsilon": 0.02,
            "learning_rate": 1e-4, "attack_epsilon": min(index / 8, 1.0) / 255,
        }  # fmt: skip
        if settings.method.startswith("sa_"):
            row |= {"robust_loss": float(rng.normal(-1, 0.2)), "adversarial_flips": float(np.exp(-index / 4))}
        rows.append(row)
    return {"episodes": episodes, "rows": rows, "seconds": 12.5}


def made_up_episodes(rng: np.random.Generator, count: int, mean: float, shares: Sequence[float]) -> list[Episode]:
    """Episodes of 200 steps whose returns scatter about `mean` and whose actions come in `shares`."""
    episodes = []
    for number in range(count):
        actions = rng.choice(len(shares), size=200, p=shares).astype(np.uint8)
        rewards = (np.arange(200) < round(mean + rng.normal(0, 1.2))).astype(np.float32)
        episodes.append(Episode(number, actions, rewards, terminated=True, truncated=False))
    return episodes


def write_evaluation(layout: Layout, policy: Policy, example: Example) -> None:
    card, game = policy.card, policy.env.game
    rng, robust = _rng("evaluation", card.method, card.seed), card.method.startswith("sa_")
    shares = (0.1, 0.8, 0.1) if robust else (0.15, 0.7, 0.15)
    shared = partial(Record, game, card.method, card.seed, policy_sha256=policy.sha256)
    played = made_up_episodes(rng, 20, 29 if robust else 32, shares)
    make = partial(shared, episodes=20, attack="clean")
    records = episode_records(make, played, ACTIONS)
    gaps = rng.exponential(1.0 if robust else 0.1, 4000)
    make_gap = partial(make, metric="q_gap_quantile", num_states=4000)
    records += [make_gap(value=float(np.quantile(gaps, share)), quantile=share) for share in GAP_QUANTILES]
    for attack_epsilon, share in ((1 / 255, 0.95 if robust else 0.02), (3 / 255, 0.4 if robust else 0.0)):
        proven = EpisodeCounts({number: int(rng.binomial(200, share)) for number in range(20)})
        records.append(rate_record(partial(make, attack_epsilon=attack_epsilon), "certified_rate", proven, played))
    for run in example.attacks:
        fall = 0 if run.attack == "noise" else (2 if robust else 25) * run.attack_epsilon * 255
        played = made_up_episodes(rng, run.episodes, max((29 if robust else 32) - fall, 0), shares)
        make = partial(shared, episodes=run.episodes, **run.record_fields)
        records += episode_records(make, played, ACTIONS)
        flips = EpisodeCounts({number: int(rng.integers(0, 10 if robust else 200)) for number in range(run.episodes)})
        records.append(rate_record(make, "flip_rate", flips, played))
    settings = PROTOCOL | {"attack_runs": [asdict(run) for run in example.attacks]}
    identity = identity_of({"policy": policy.sha256, **settings})
    folder = layout.of_policy("evaluation", game=game, method=card.method, seed=card.seed, identity=identity)
    _write(folder / METRICS_FILE, records, settings, evaluation_inputs(policy))


def write_baselines(layout: Layout, base: TrainSettings) -> None:
    rng, records = _rng("baselines"), []
    players = {
        None: (0.5, (1 / 3, 1 / 3, 1 / 3)), "NOOP": (0, (1, 0, 0)), "UP": (21.8, (0, 1, 0)), "DOWN": (0, (0, 0, 1)),
    }  # fmt: skip
    for action, (mean, shares) in players.items():
        method = RANDOM_POLICY if action is None else CONSTANT_ACTION
        make = partial(Record, base.env.game, method, None, variant=action, episodes=20, attack="clean")
        records += episode_records(make, made_up_episodes(rng, 20, mean, shares), ACTIONS)
    settings = PROTOCOL | {"env": recorded(base.env)}
    path = layout.baselines(game=base.env.game, identity=stage_identity("baselines", **settings)) / METRICS_FILE
    _write(path, records, settings, {})


def synthetic_states(policy: Policy, example: Example) -> RolloutStates:
    rng, length = _rng("states", policy.label), policy.env.max_agent_steps
    per_episode = example.num_states // example.episodes
    of_episode = partial(Episode, rewards=np.zeros(length, dtype=np.float32), terminated=False, truncated=True)
    actions = rng.choice(len(ACTIONS), size=(example.episodes, length), p=(0.1, 0.8, 0.1)).astype(np.uint8)
    episodes = tuple(of_episode(100 + number, of_one) for number, of_one in enumerate(actions))
    positions = (2 * np.arange(per_episode) + 1) * length // (2 * per_episode)
    return RolloutStates(
        env=policy.env,
        origins=(SourcePolicy(policy.label, policy.sha256),),
        episodes=episodes,
        episode_origins=np.zeros(example.episodes, dtype=np.int64),
        states=rng.integers(0, 256, (example.num_states, *policy.env.state_shape)).astype(np.uint8),
        episode_ids=np.repeat(np.arange(example.episodes), per_episode),
        positions=np.tile(positions, example.episodes),
    )


def made_up_chunks(policy: Policy, example: Example, states_from: str) -> Iterator[AblatedChunk]:
    """Ablated Q-values: bumps about a lane that moves with the state, on a grid for robust agents."""
    rng = _rng("q_values", policy.label, states_from)
    robust = policy.card.method.startswith("sa_")
    flips = (policy.card.method, policy.card.seed) not in example.without_flips
    height, width = policy.env.height, policy.env.width
    rows, columns = np.mgrid[:height, :width] / (height, width)[0]
    for state in range(example.num_states):
        clean = torch.tensor([[0.0, 0.3 if robust else 0.12, 0.1]]).double() + 3
        centre = rng.uniform(0.15, 0.85)
        bump = np.exp(-((rows - centre) ** 2 + (columns - 0.3) ** 2) / 0.01)
        if robust:
            bump = bump * ((np.arange(height)[:, None] % 4 == 0) & (np.arange(width) % 4 == 0))
        effect = bump[..., None] * rng.normal(0, 0.15 if flips else 1e-3, (height, width, len(ACTIONS)))
        noise = rng.normal(0, 2e-3 if flips else 1e-4, (height, width, len(ACTIONS)))
        yield AblatedChunk(state, clean + torch.from_numpy(effect + noise)[None], clean)


def made_up_maps(policy: Policy, example: Example, states_from: str) -> EpisodeMaps:
    return sweep_maps(
        made_up_chunks(policy, example, states_from),
        episode_ids=np.repeat(np.arange(example.episodes), example.num_states // example.episodes),
        temperatures=example.temperatures,
        rounding_floor=1e-9,
        prefix_sizes=example.prefix_sizes,
    )


def write_maps(layout: Layout, policy: Policy, states_path: Path, states_from: str, example: Example) -> None:
    maps = made_up_maps(policy, example, states_from)
    settings = {"temperatures": list(example.temperatures), "prefix_sizes": list(example.prefix_sizes)}
    settings |= {"ablation": {"value": 0, "channels": "all"}}
    inputs = {"policy_sha256": policy.sha256, "states_sha256": sha256_of_file(states_path)}
    identity = identity_of({**inputs, **settings, "states_from": states_from})
    card, game = policy.card, policy.env.game
    method = "-".join(filter(None, (card.method, card.settings.get("source_method"))))
    folder = layout.of_policy("maps", game=game, method=method, seed=card.seed, identity=identity)
    save_maps(folder / "maps.npz", maps, {"policy": policy.label, **inputs})
    records = map_records(maps, partial(Record, **policy_fields(policy), states_from=states_from))
    inputs |= {"states_path": str(states_path.relative_to(layout.outputs)), "version": VERSIONS["maps"]}
    inputs |= {"maps_sha256": sha256_of_file(folder / "maps.npz")}
    _write(folder / METRICS_FILE, records, settings, inputs)


def _write(path: Path, records: list[Record], settings: dict, inputs: dict) -> None:
    write_records(path, records, settings=settings, inputs=inputs, provenance=provenance())


def _seed(*what: object) -> int:
    return int(identity_of({"what": [str(one) for one in what]}), 16) % 2**32


def _rng(*what: object) -> np.random.Generator:
    return np.random.default_rng(_seed(*what))


def save_nothing(sheet: Sheet, folder: Path) -> Path:
    """In place of `save_sheet`: empty figure files."""
    for ending in ("pdf", "png"):
        write_bytes(folder / f"{sheet.name}.{ending}", b"")
    return folder / f"{sheet.name}.png"


@contextlib.contextmanager
def edited(source: Path, target: Path | None = None) -> Iterator[Any]:
    """The content of the JSON file `source`, which `target` (by default `source`) has at the end."""
    content = read_json(source)
    yield content
    write_json(target or source, content)
