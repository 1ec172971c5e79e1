"""Map your own network: put it and some states into my_agent.py."""

import nrmap

from my_agent import network, states  # a torch module or any function, and uint8 states [N, 4, 84, 84]

agent = nrmap.Agent(network, state_shape=(4, 84, 84), outputs="q_values", input_scale=1 / 255)
maps = nrmap.compute_maps(agent, states, temperatures=[1.0])
print("S(K) =", maps.sparsity("kmap"))
maps.plot().savefig("maps.png")
