"""Returns under AutoPGD of another library: `python -m bench.independent_attacks FILE …`, minutes each.

AutoPGD (Croce and Hein 2020) is that of the Adversarial Robustness Toolbox. It adapts its step sizes and sees the
policy only as a classifier of states. FILE is a policy. Plays whole episodes with the seeds of the evaluation, so its
returns stand beside those of our attacks. Prints one Markdown row per file.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from art.attacks.evasion import AutoProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from conf.argument_parser import ParserWithDefaults, whole
from nrmap.atari.episode_seeds import EVALUATION_STREAM, episode_seeds
from nrmap.play.rollout import Actions, Bytes, Ints, play
from nrmap.policies.network import unit_states
from nrmap.policies.policy import Policy, load_policy
from nrmap.robustness.perturbations import check_attack_epsilon
from nrmap.statistics.intervals import estimate_mean
from nrmap.support.errors import check, errors_in_one_line
from nrmap.support.progress import Progress

RUN_SEED = 0


class AutoPgdPlayer:
    """The greedy policy on states attacked by AutoPGD; counts the states and the flipped actions."""

    def __init__(self, policy: Policy, *, attack_epsilon: float, steps: int) -> None:
        """`steps` is the largest number of steps, `attack_epsilon` the radius of the ℓ∞ ball in [0, 1]."""
        self._policy = policy
        self.classifier = PyTorchClassifier(
            policy.network,
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=policy.state_shape,
            nb_classes=policy.network.spec.actions,
            clip_values=(0, 1),
        )
        self._ball = {"norm": np.inf, "eps": attack_epsilon, "eps_step": 2 * attack_epsilon, "max_iter": steps}
        self._attack_epsilon = attack_epsilon
        self.counts: Counter[str] = Counter()

    def __call__(self, states: Bytes, episodes: Ints, steps: Ints, /) -> Actions:
        """Choose actions [n] for uint8 `states` [n, C, H, W], see `ActionFn`.

        Raises NrmapError if AutoPGD leaves the ball.
        """
        clean = unit_states(torch.from_numpy(states))  # [n, C, H, W]
        greedy = self._greedy(clean)
        attack = AutoProjectedGradientDescent(
            self.classifier, loss_type="cross_entropy", nb_random_init=1, batch_size=len(states), verbose=False,
            **self._ball,
        )  # fmt: skip
        perturbed = torch.from_numpy(attack.generate(clean.numpy(), greedy))
        inside = bool((perturbed - clean).abs().max() <= self._attack_epsilon + 1e-6)
        check(inside, "AutoPGD left the ball of its radius")
        actions = self._greedy(perturbed)
        self.counts.update(states=len(states), flipped=int((actions != greedy).sum()))
        return actions

    @torch.no_grad()
    def _greedy(self, states: torch.Tensor) -> NDArray[np.int64]:
        actions: NDArray[np.int64] = self._policy.network(states).argmax(dim=1).numpy()
        return actions


@errors_in_one_line()
def main() -> None:
    """Print the rows of all files; an error, such as a missing file, prints one line and exits with status 2."""
    parser = ParserWithDefaults(prog="python -m bench.independent_attacks", description=__doc__)
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="a policy")
    add("--episodes", type=whole(most=1000), default=5, help="whole episodes, played side by side")
    add("--steps", type=whole(most=1000), default=20, help="most steps of AutoPGD")
    add("--attack-epsilon", type=float, default=1 / 255, help="radius, on pixels from 0 to 1")
    add("--threads", type=whole(most=64), default=1, help="torch threads")
    options = parser.parse_args()
    check_attack_epsilon(options.attack_epsilon)
    torch.set_num_threads(options.threads)
    policies = [load_policy(path) for path in options.files]
    print("| policy | return under AutoPGD [95% interval] | flipped |\n|---|---|---|", flush=True)
    for path, policy in zip(options.files, policies, strict=True):
        np.random.seed(RUN_SEED)  # ART draws from numpy's global generator
        player = AutoPgdPlayer(policy, attack_epsilon=options.attack_epsilon, steps=options.steps)
        seeds = episode_seeds(policy.env, RUN_SEED, options.episodes, EVALUATION_STREAM)
        with Progress(f"{policy.label}: AutoPGD", unit="steps") as shown:
            played = play(player, policy.env, seeds, num_envs=len(seeds), progress=shown.update)
        mean = estimate_mean([episode.total_reward for episode in played])
        flipped = player.counts["flipped"] / player.counts["states"]
        print(f"| {path.parent} | {mean} | {flipped:.1%} |", flush=True)


if __name__ == "__main__":
    main()
