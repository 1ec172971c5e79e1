"""The stage that maps null networks on the states of a policy's maps."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from analyze.settings import MapSettings, Resources
from analyze.study import StatesFile, ensure_maps
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks
from nrmap.policies.policy import Policy
from nrmap.support.layout import Layout
from nrmap.support.records import Record
from nrmap.support.tracking import summary_name

# The measures of null networks that W&B's summary holds: those that panels compare.
_SUMMARISED = ("sparsity", "grid_excess")


def ensure_null_networks(
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
    """The records of the maps of `draws` null networks of each kind, on the states of `policy`'s maps.

    Each null network is a result of its own, identified by its weights and states like any policy,
    so random weights are mapped once for all policies that share states.
    """
    if draws == 0:
        return []
    return [
        record
        for kind in NULL_NETWORKS
        for network in null_networks(policy, kind, draws, seed)
        for record in ensure_maps(
            network, states, settings, states_from=states_from, resources=resources, layout=layout
        ).records
    ]


def null_network_summary(records: Iterable[Record]) -> Mapping[str, float]:
    """Means over the draws of each kind of null network, by names like `random_weights_kl_sparsity_T1`.

    A measure that is undefined for any of the draws is left out.
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
