"""Confidence intervals and nested subsets of states."""
