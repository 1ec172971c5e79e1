"""Perturbations, attacks, bounds, certificates."""
