"""Roll-outs, states, players, evaluation."""
