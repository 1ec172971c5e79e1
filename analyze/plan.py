"""List the parts of an analysis still to do (roll-outs, play, maps), to estimate the time left."""

from collections.abc import Iterator, Sequence

from analyze.maps import maps_folder, maps_label, null_networks_of
from analyze.study import StatesFile, Study, missing_play, own_states_path
from nrmap.atari.envs import action_names
from nrmap.policies.agent import Agent
from nrmap.support.clock import Part
from nrmap.support.layout import METRICS_FILE
from nrmap.support.records import CONSTANT_ACTION, RANDOM_POLICY


def planned_parts(study: Study, policy: Agent, sources: Sequence[Agent], states: StatesFile | None) -> list[Part]:
    """List the parts of the analysis of `policy` that are still to do.

    `sources` are the policies whose roll-outs supply the states. `states` is None until all roll-outs are played.
    """
    return [*roll_outs(study, sources), *_maps(study, policy, sources, states), *_play(study, policy)]


def _kind(policy: Agent, what: str) -> str:
    return f"{policy.game}/{'x'.join(map(str, policy.state_shape))}/{what}"


def roll_outs(study: Study, sources: Sequence[Agent]) -> Iterator[Part]:
    """Yield the missing roll-outs of `sources`; none if the states come from a file."""
    if study.settings.states.from_file is None:
        for policy in sources:
            if not own_states_path(study, policy).exists():
                yield Part(f"{policy.label}: roll-out", _kind(policy, "roll-out"), study.settings.states.episodes)


def _play(study: Study, policy: Agent) -> Iterator[Part]:
    if policy.env is None:
        return
    baselines, evaluation = missing_play(study, policy)
    settings = evaluation or study.settings.evaluation
    if baselines:
        actions = action_names(policy.env)
        for player in (RANDOM_POLICY, *(f"{CONSTANT_ACTION} {action}" for action in actions)):
            yield Part(f"{policy.game}: baselines, {player}", _kind(policy, "baselines"), settings.episodes)
    if evaluation:
        for attack, label, episodes in (
            ("clean", "clean", settings.episodes),
            *((run.attack, run.label, run.episodes) for run in settings.attack_runs),
        ):
            yield Part(f"{policy.label}: evaluation, {label}", _kind(policy, attack), episodes)


def _maps(study: Study, policy: Agent, sources: Sequence[Agent], states: StatesFile | None) -> Iterator[Part]:
    num_states = study.settings.states.num_states * len(sources) if states is None else len(states.states.states)
    for network in (policy, *null_networks_of(study, policy)):
        if states is None or not (maps_folder(study, network, states) / METRICS_FILE).exists():
            yield Part(maps_label(study, network), _kind(policy, "maps"), units=num_states)
