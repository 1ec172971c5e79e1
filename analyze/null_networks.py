"""The stage of the null networks: random and shuffled weights, mapped on the states of a policy's maps."""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from analyze.maps import ensure_maps
from analyze.study import StatesFile, Study
from nrmap.maps.null_networks import NULL_NETWORKS, null_networks
from nrmap.policies.agent import Agent
from nrmap.policies.policy import Policy
from nrmap.support.records import Record
from nrmap.support.tracking import summary_name

log = logging.getLogger(__name__)

# The two numbers that the panels of W&B compare.
_SUMMARISED = ("sparsity", "grid_excess")


def ensure_null_networks(study: Study, policy: Agent, states: StatesFile) -> list[Record]:
    """Records of the maps of the null networks of each kind, as many as settings.controls, on the states of `policy`.

    Like any maps they are named by weights and states, so all policies that share states share the
    maps of random weights.
    """
    draws, seed = study.settings.controls, study.settings.evaluation.run_seed
    if not isinstance(policy, Policy):
        if draws:
            log.info("no null networks of %s: nrmap does not know its layers", policy.label)
        return []
    return [
        record
        for kind in NULL_NETWORKS
        for network in (null_networks(policy, kind, draws, seed) if draws else ())
        for record in ensure_maps(study, network, states).records
    ]


def null_network_summary(records: Iterable[Record]) -> Mapping[str, float]:
    """The means over the draws of each kind of null network, by `random_weights_kl_sparsity_T1` and the like.

    A value that is undefined for a draw has no mean.
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
