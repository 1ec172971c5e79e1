"""Robustness of policies: perturbations, attacks, interval bounds and certificates."""
