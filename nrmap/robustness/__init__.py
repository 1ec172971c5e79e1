"""Perturbations, attacks, bounds and certificates."""
