"""Map a trained policy on states of its own episodes, from a clone: python examples/map_a_reference_policy.py.

Optional arguments: the number of states, the number of episodes, a policy file. Writes reference_maps.npz and .png.
"""

import sys

import nrmap

given = dict(enumerate(sys.argv))
num_states, episodes = int(given.get(1, 160)), int(given.get(2, 16))
policy = nrmap.load_policy(given.get(3, "outputs/reference/quick/Freeway/sa_ddqn/seed0/policy.safetensors"))

states = nrmap.collect_states(policy, num_states, episodes)
maps = nrmap.compute_maps(policy, states, temperatures=[0.01, 1.0])
for kind, temperature in maps.kinds:
    print(f"{kind:12} T = {temperature}  S = {maps.sparsity(kind, temperature)}")
maps.save("reference_maps.npz")
maps.plot().savefig("reference_maps.png")
