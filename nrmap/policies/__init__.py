"""Agents, their networks, and policy files."""
