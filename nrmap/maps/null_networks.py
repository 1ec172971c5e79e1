"""Null networks: random or layer-wise shuffled weights.

A pattern in a policy's map comes from its training only if null networks do not show it on the
same states. Otherwise the architecture or the sizes of the weights may cause it.
"""

import copy
import hashlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import safetensors.torch
import torch

from nrmap.policies.agent import Agent
from nrmap.policies.network import QNetwork, seeded_network
from nrmap.policies.policy import Policy, PolicyCard
from nrmap.support.files import identity_of
from nrmap.support.identity import recorded

NullNetworkKind = Literal["random_weights", "shuffled_weights"]
NULL_NETWORKS: Sequence[NullNetworkKind] = get_args(NullNetworkKind)


def null_networks(policy: Policy, kind: NullNetworkKind, draws: int, seed: int) -> list[Policy]:
    """Make `draws` networks of the architecture of `policy`; a draw's number, from 0, is the seed on its card.

    "random_weights" initialises an untrained network. "shuffled_weights" permutes the entries of each weight tensor and
    each bias of `policy`. The random numbers of a draw depend on `seed`, `kind` and the draw's number only. Each
    network's `sha256` is the hash of its weights.
    """
    return [_null_network(policy, kind, draw, seed) for draw in range(draws)]


def policy_fields(agent: Agent) -> dict[str, Any]:
    """Return the fields of a Record that identify `agent`.

    For a null network "draw" is its number and "seed" is None. "source_method" and "source_seed" then name the policy
    whose weights are shuffled, and are None for random weights. "outputs" is there for logits only.
    """
    fields = {"game": agent.game, "method": agent.method, "seed": agent.seed, "policy_sha256": agent.sha256}
    if agent.outputs == "logits":
        fields["outputs"] = "logits"
    if not isinstance(agent, Policy) or agent.method not in NULL_NETWORKS:
        return fields
    source = {name: agent.card.settings.get(name) for name in ("source_method", "source_seed")}
    return {**fields, "seed": None, "draw": agent.seed, **source}


def _null_network(policy: Policy, kind: NullNetworkKind, draw: int, seed: int) -> Policy:
    words = np.random.SeedSequence([seed, NULL_NETWORKS.index(kind), draw]).generate_state(1)
    if kind == "random_weights":
        network = seeded_network(policy.network.spec, int(words[0])).to(policy.device).requires_grad_(False)
    else:
        network = _shuffled(policy, int(words[0]))
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    parent = policy.sha256 if kind == "shuffled_weights" else None
    # Identities hash the word "control", as null networks were called before.
    settings = {"control": kind, "draw": draw, "seed": seed}
    what = {"stage": "control", "network": recorded(policy.network.spec), **settings, "parent_sha256": parent}
    source = {} if parent is None else {"source_method": policy.card.method, "source_seed": policy.card.seed}
    card = PolicyCard(
        method=kind, seed=draw, agent_steps=0, identity=identity_of(what), settings={**settings, **source},
        parent_sha256=parent,
    )  # fmt: skip
    sha256 = hashlib.sha256(safetensors.torch.save(weights)).hexdigest()
    return Policy(network, policy.env, card, sha256, policy.outputs).eval()


def _shuffled(policy: Policy, seed: int) -> QNetwork:
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(policy.network).requires_grad_(False)
    for weights in network.parameters():
        places = torch.randperm(weights.numel(), generator=generator).to(weights.device)
        weights.copy_(weights.flatten()[places].view(weights.shape))
    return network
