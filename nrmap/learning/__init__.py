"""Training of agents: replay, schedules, the losses of DDQN and SA-DDQN, and one update of each."""
