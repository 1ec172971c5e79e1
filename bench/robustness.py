"""Measure the robustness of policies, in about a minute each: `python -m bench.robustness FILE …`.

Helps in the search for training settings. FILE is a policy or the checkpoint of a running training. Plays
whole greedy episodes with validation seeds, which neither training nor evaluation uses, and attacks some
of their states with PGD and with the training's own attack. Prints one Markdown row per file.
"""

from pathlib import Path
from typing import Any

import torch

from conf.argument_parser import ParserWithDefaults, whole
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import action_names
from nrmap.atari.episode_seeds import VALIDATION_STREAM
from nrmap.learning.inner_attack import InnerAttack
from nrmap.play.evaluation import AttackRun, EvaluationSettings, evaluate
from nrmap.play.states import collect_states
from nrmap.policies.network import NetworkSpec, QNetwork, unit_states
from nrmap.policies.policy import Policy, PolicyCard, load_policy
from nrmap.robustness.attacks import StateNoise, attack_named
from nrmap.robustness.bounds import margin_bounds
from nrmap.robustness.perturbations import check_attack_epsilon
from nrmap.support.errors import NrmapError, code_of_others, errors_in_one_line, first_line
from nrmap.support.files import read_json
from nrmap.support.layout import CHECKPOINT_FILE, SETTINGS_FILE
from nrmap.support.records import select
from nrmap.support.schema import validated
from train.checkpoint import load_checkpoint

RUN_SEED = 0
COLUMNS = (
    "policy", "steps", "clean", "PGD-10", "actions", "gap 5% 50% 95%", "shift", "own flips", "flipped", "bound",
    "certified",
)  # fmt: skip


def read(path: Path) -> Policy:
    """Load the policy in `path`, or the current policy of the checkpoint in `path`, which needs its settings beside it.

    Raises NrmapError for a file that is missing, damaged or of another kind.
    """
    if path.name != CHECKPOINT_FILE:
        return load_policy(path)
    state, settings = load_checkpoint(path), read_json(path.with_name(SETTINGS_FILE), dict[str, Any])
    try:
        trainer, env = state["trainer"], validated(EnvSpec, settings["env"], "env")
        channels, height, width = env.state_shape
        actions = len(action_names(env))
        network = QNetwork(NetworkSpec(channels, height, width, actions, dueling=settings["dueling"]))
        network.load_state_dict({name: tensor.half().float() for name, tensor in trainer["learner"]["online"].items()})
        results = {"rollbacks": state["curves"].get("rollbacks", [])}
        card = PolicyCard(
            settings["method"], settings["seed"], trainer["agent_step"], "unfinished", settings, results=results
        )
        return Policy(network.requires_grad_(False), env, card).eval()
    except Exception as error:  # whatever a missing or another key leads to
        expected = f"expected a checkpoint of a training, and its {SETTINGS_FILE} beside it"
        raise NrmapError(f"{path}: {expected} ({type(error).__name__}: {first_line(error)})") from error


def own_attack(policy: Policy) -> InnerAttack | None:
    """Return the attack that the policy was last trained against, stronger after every roll-back; None without PGD.

    Raises NrmapError for settings of the regulariser that are not those of a training.
    """
    settings = policy.card.settings.get("regulariser")
    with code_of_others(f"{policy.label}: its settings of the regulariser are not those of a training"):
        if settings is None or settings["solver"] != "pgd":
            return None
        attack = InnerAttack(settings.get("inner_attack", "pgd"), settings["pgd_steps"], settings["pgd_step_fraction"])
        return attack.strengthened(len(policy.card.results.get("rollbacks", [])))


def own_flips(policy: Policy, states: torch.Tensor, attack_epsilon: float) -> str:
    """Return as text the percentage of `states`, float [N, C, H, W] in [0, 1], that `own_attack` flips, or "—"."""
    attack = own_attack(policy)
    if attack is None:
        return "—"
    a_star = policy.network(states).argmax(dim=1)  # [N]
    generator = torch.Generator().manual_seed(RUN_SEED)
    reached, _ = attack(policy.network, states, a_star, attack_epsilon=attack_epsilon, generator=generator)
    return f"{(policy.network(reached).argmax(dim=1) != a_star).float().mean():.1%}"


def look(policy: Policy, *, episodes: int, attacked_episodes: int, num_states: int, attack_epsilon: float) -> list[str]:
    """Measure a policy; return its cells of `COLUMNS` but the first. `attack_epsilon` is the ℓ∞ radius in [0, 1].

    "shift" is the mean change of the margin of eq. 7 under PGD-10, and "bound" the median upper bound of that margin.
    """
    runs = (AttackRun("pgd-10", attack_epsilon, attacked_episodes),) if attacked_episodes else ()
    settings = EvaluationSettings(episodes, RUN_SEED, VALIDATION_STREAM, attack_runs=runs)
    records = evaluate(policy, settings, num_envs=max(episodes, attacked_episodes))

    def value(metric: str, attack: str = "clean", **part: str | float) -> float:
        found = select(records, metric=metric, attack=attack, **part)
        assert found[0].value is not None, f"{metric} is undefined"
        return found[0].value

    sample = collect_states(
        policy, num_states=num_states, episodes=episodes, run_seed=RUN_SEED, stream=VALIDATION_STREAM
    )
    states = unit_states(torch.from_numpy(sample.states))  # [N, C, H, W]
    noise = StateNoise(RUN_SEED, sample.episode_ids, sample.positions)
    attacked = attack_named("pgd-10")(policy.for_attacks(), states, attack_epsilon=attack_epsilon, noise=noise)
    with torch.no_grad():
        bounds = margin_bounds(policy.network, states, attacked.clean_actions, attack_epsilon)  # [N]
    names = action_names(policy.env)
    shares = " ".join(f"{name} {value('action_share', action=name):.0%}" for name in names)
    gaps = " ".join(f"{value('q_gap_quantile', quantile=quantile):.3f}" for quantile in (0.05, 0.5, 0.95))
    under = f"{value('return_mean', 'pgd'):.1f}" if attacked_episodes else "—"
    return [
        f"{policy.card.agent_steps:,}",
        f"{value('return_mean'):.1f}",
        under,
        shares,
        gaps,
        f"{(attacked.margins - attacked.clean_margins).mean():.4f}",
        own_flips(policy, states, attack_epsilon),
        f"{attacked.flipped.float().mean():.1%}",
        f"{bounds.median():.3g}",
        f"{(bounds < 0).float().mean():.1%}",
    ]


@errors_in_one_line()
def main() -> None:
    """Print the rows of all files; an error, such as a missing file, prints one line and exits with status 2."""
    parser = ParserWithDefaults(prog="python -m bench.robustness", description=__doc__)
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="a policy or a checkpoint")
    add("--episodes", type=whole(), default=4, help="clean episodes")
    add("--attacked-episodes", type=whole(0), default=0, help="episodes under PGD-10, a minute for two")
    add("--states", type=whole(), default=128, help="states to attack and to bound")
    add("--attack-epsilon", type=float, default=1 / 255, help="radius, on pixels from 0 to 1")
    add("--threads", type=whole(most=64), default=1, help="torch threads")
    options = parser.parse_args()
    check_attack_epsilon(options.attack_epsilon)
    torch.set_num_threads(options.threads)
    policies = [read(path) for path in options.files]
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    for path, policy in zip(options.files, policies, strict=True):
        cells = look(
            policy,
            episodes=options.episodes,
            attacked_episodes=options.attacked_episodes,
            num_states=options.states,
            attack_epsilon=options.attack_epsilon,
        )
        print("|", " | ".join([str(path.parent), *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
