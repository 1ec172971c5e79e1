"""Maps of what a deep Q-policy is sensitive to, pixel by pixel, and the agents to map.

The library knows nothing of Hydra: the entry points `train` and `analyze` turn their
configuration into the frozen dataclasses of `nrmap.settings` once and pass those on.
"""

__version__ = "0.2.0"
