"""Training of DDQN and SA-DDQN agents: settings, exploration, replay, losses and updates."""
