"""Compare DDQN and SA-DDQN on the same states, from a clone: python examples/compare_two_policies.py.

Optional arguments: the number of states, the number of episodes. Writes ddqn_maps.png and sa_ddqn_maps.png.
"""

import sys

import nrmap

given = dict(enumerate(sys.argv))
num_states, episodes = int(given.get(1, 160)), int(given.get(2, 16))
policies = [
    nrmap.load_policy(f"outputs/reference/quick/Freeway/{name}/seed0/policy.safetensors")
    for name in ("ddqn", "sa_ddqn")
]

states = nrmap.collect_states(policies[0], num_states, episodes)
for policy in policies:
    maps = nrmap.compute_maps(policy, states)
    attacked = nrmap.attack(policy, states, "pgd-10", epsilon=1 / 255)
    certified = nrmap.certify(policy, states, epsilon=1 / 255)
    print(policy.label)
    print(f"  S(K) = {maps.sparsity('kmap')}")
    print(f"  flipped by PGD-10: {attacked.flipped.double().mean():.1%}, certified: {certified.double().mean():.1%}")
    maps.plot().savefig(f"{policy.method}_maps.png")
