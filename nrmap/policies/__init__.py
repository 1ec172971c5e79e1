"""Q-networks and policy files."""
