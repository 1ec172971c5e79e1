"""Settings that determine a trained policy, and the hash that identifies them."""

from typing import Annotated

from pydantic import Field

from nrmap.atari.env_spec import EnvSpec
from nrmap.learning.exploration import ExplorationSpec
from nrmap.learning.learner import LearnerSpec
from nrmap.learning.replay import ReplaySpec
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.policies.network import NetworkSpec
from nrmap.support.files import identity_of
from nrmap.support.identity import recorded
from nrmap.support.schema import NotNegative, Seed, SomeSteps, Steps, Word, expect, schema


@schema
class PolicyFile:
    """A policy file to start from. Its content is part of the run's identity, its path is not."""

    path: str


@schema
class TrainSettings:
    """Settings of one training run. `steps` and `warm_up_steps` are agent steps over all environments.

    After warm-up there is one update every `steps_per_update` agent steps. `parent` is the policy to start
    from: the settings that train it, or a file; None starts from random weights. `anchor` is the weight of
    `anchor_loss`, which keeps advantages near the parent's. Raises NrmapError for settings out of range.
    """

    env: EnvSpec
    method: Word
    seed: Seed
    steps: SomeSteps
    num_envs: Annotated[int, Field(ge=1, le=1024)]
    steps_per_update: SomeSteps
    warm_up_steps: Steps
    dueling: bool
    clip_rewards: bool
    life_loss_ends_return: bool
    exploration: ExplorationSpec
    replay: ReplaySpec
    learner: LearnerSpec
    regulariser: RegulariserSpec | None
    parent: "TrainSettings | PolicyFile | None"
    anchor: NotNegative = 0.0

    def __post_init__(self) -> None:
        NetworkSpec(*self.env.state_shape, actions=1, dueling=self.dueling)  # checks the size of the screen
        expect(self.anchor == 0 or self.parent is not None, self, "anchor", "0 without a parent")
        slots = (self.replay.n_step + self.env.frame_stack + 1) * self.num_envs  # one transition is always complete
        window = f"at least {slots}, an n-step window for each of {self.num_envs} environments"
        expect(self.replay.capacity >= slots, self, "replay.capacity", window)
        first_returns = (self.replay.n_step + 1) * self.num_envs
        batch = f"at least (n_step + 1) · num_envs = {first_returns}, so that a first batch can be drawn"
        expect(self.warm_up_steps >= first_returns, self, "warm_up_steps", batch)
        whole = self.num_envs % self.steps_per_update == 0 or self.steps_per_update % self.num_envs == 0
        expect(whole, self, "steps_per_update", f"a divisor or a multiple of num_envs={self.num_envs}")

    @property
    def label(self) -> str:
        """The name for logs and messages, e.g. `Freeway/sa_ddqn/seed0`."""
        return f"{self.env.game}/{self.method}/seed{self.seed}"

    @property
    def updates(self) -> int:
        """The number of updates of the run. Warm-up and run end with a whole step of all environments."""
        begin, end = (-(-steps // self.num_envs) * self.num_envs for steps in (self.warm_up_steps, self.steps))
        return max(end // self.steps_per_update - begin // self.steps_per_update, 0)

    def identity(self, parent_sha256: str | None) -> str:
        """Return a short hash of these settings and of `parent_sha256`, which covers the parent's settings.

        `parent_sha256` is None without a parent.
        """
        own = {**recorded(self), "parent": None}
        if not self.anchor:
            del own["anchor"]  # omit a zero anchor so that older policies keep their ID
        return identity_of({"stage": "train", "settings": own, "parent_sha256": parent_sha256})
