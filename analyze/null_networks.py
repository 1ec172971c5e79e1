"""The stage of the controls: networks that have learned nothing, mapped on the states of a policy's maps."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from analyze.settings import MapSettings, Resources
from analyze.study import StatesFile, ensure_maps
from nrmap.maps.null_networks import CONTROL_KINDS, control_policies
from nrmap.policies.policy import Policy
from nrmap.support.layout import Layout
from nrmap.support.records import Record
from nrmap.support.tracking import summary_name

# What W&B is told of controls: of all that is measured on maps, the two numbers that panels compare.
_SUMMARISED = ("sparsity", "grid_excess")


def ensure_controls(
    policy: Policy,
    states: StatesFile,
    settings: MapSettings,
    *,
    draws: int,
    seed: int,
    states_from: str,
    resources: Resources,
    layout: Layout,
) -> list[Record]:
    """What is measured on the maps of `draws` networks of each kind of control, on the states of `policy`'s maps.

    Every control is a result of its own, named like any maps by its weights and its states, so
    random weights are mapped once for all policies that share states. Without draws there is none.
    """
    if draws == 0:
        return []
    return [
        record
        for kind in CONTROL_KINDS
        for control in control_policies(policy, kind, draws, seed)
        for record in ensure_maps(
            control, states, settings, states_from=states_from, resources=resources, layout=layout
        ).records
    ]


def control_summary(records: Iterable[Record]) -> Mapping[str, float]:
    """The means over the draws of each kind of control, by `random_weights_kl_sparsity_T1` and the like.

    A value that is undefined for some of the draws has no mean.
    """
    values: dict[str, list[float | None]] = defaultdict(list)
    for record in records:
        if record.metric in _SUMMARISED and not record.is_part:
            name = summary_name(record.metric_key, temperature=record.temperature)
            values[f"{record.method}_{name}"].append(record.value)
    means = {}
    for name, each in values.items():
        defined = [value for value in each if value is not None]
        if len(defined) == len(each):
            means[name] = math.fsum(defined) / len(defined)
    return means
