"""One page over everything under the outputs folder. It reads what was measured and adds differences only."""
