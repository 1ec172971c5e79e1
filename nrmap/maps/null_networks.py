"""Networks that have learned nothing, or forgotten where they put it: what a map looks like without a policy in it.

A pattern in a map says something about a policy only if such networks do not show it on the same
states: the pattern may come from the architecture alone, or from the sizes of the weights.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import numpy as np
import safetensors.torch
import torch

from nrmap.policies.network import QNetwork
from nrmap.policies.policy import Policy, PolicyCard
from nrmap.support.errors import check, unknown_choice
from nrmap.support.files import identity_of

ControlKind = Literal["random_weights", "shuffled_weights"]
CONTROL_KINDS: Sequence[ControlKind] = get_args(ControlKind)


def control_policies(policy: Policy, kind: ControlKind, draws: int, seed: int) -> list[Policy]:
    """`draws` networks of the shape of `policy` to be mapped beside it; draw number d is their card's seed.

    "random_weights" draws weights as a training run from scratch does at its start; the result
    depends on the network's shape alone and is the same for every policy of that shape.
    "shuffled_weights" permutes the entries of each weight tensor and of each bias of `policy`, so
    that every layer keeps its values but not their places. A draw follows from (seed, kind, d) and is the same in a
    longer list; `sha256` is that of its weights. Raises NrmapError for an unknown kind, fewer
    than one draw and a negative seed.
    """
    if kind not in CONTROL_KINDS:
        raise unknown_choice("control", kind, CONTROL_KINDS)
    check(draws >= 1, f"draws={draws}: expected at least 1")
    check(seed >= 0, f"seed={seed}: expected at least 0")
    return [_control(policy, kind, draw, seed) for draw in range(draws)]


def policy_fields(policy: Policy) -> dict[str, Any]:
    """The fields of a Record that name `policy`; those of a null network are its kind, its draw and its source."""
    card = policy.card
    fields = {"game": policy.env.game, "method": card.method, "seed": card.seed, "policy_sha256": policy.sha256}
    if card.method not in CONTROL_KINDS:
        return fields
    source = {name: card.settings.get(name) for name in ("source_method", "source_seed")}
    return {**fields, "seed": None, "draw": card.seed, **source}


def _control(policy: Policy, kind: ControlKind, draw: int, seed: int) -> Policy:
    words = np.random.SeedSequence([seed, CONTROL_KINDS.index(kind), draw]).generate_state(1)
    network = _random(policy, int(words[0])) if kind == "random_weights" else _shuffled(policy, int(words[0]))
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    parent = policy.sha256 if kind == "shuffled_weights" else None
    settings = {"control": kind, "draw": draw, "seed": seed}
    what = {"stage": "control", "network": asdict(policy.network.spec), **settings, "parent_sha256": parent}
    source = {} if parent is None else {"source_method": policy.card.method, "source_seed": policy.card.seed}
    card = PolicyCard(
        method=kind,
        seed=draw,
        agent_steps=0,
        identity=identity_of(what),
        settings={**settings, **source},
        parent_sha256=parent,
    )
    sha256 = hashlib.sha256(safetensors.torch.save(weights)).hexdigest()
    return Policy(network, policy.env, card, sha256).eval()


def _random(policy: Policy, seed: int) -> QNetwork:
    device = next(policy.network.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return QNetwork(policy.network.spec).to(device).requires_grad_(False)


def _shuffled(policy: Policy, seed: int) -> QNetwork:
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(policy.network).requires_grad_(False)
    for weights in network.parameters():
        places = torch.randperm(weights.numel(), generator=generator).to(weights.device)
        weights.copy_(weights.flatten()[places].view(weights.shape))
    return network
