"""Atari games as seeded episodes."""
