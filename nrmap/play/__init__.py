"""Play episodes: roll-outs, players, samples of states, evaluation and imported policies."""
