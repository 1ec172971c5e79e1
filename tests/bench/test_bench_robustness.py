"""bench.robustness on policies of known robustness."""

import json
import re
import sys
from dataclasses import asdict, replace

import torch
from toy_policies import FREEWAY, toy_policy

from bench.robustness import look, main, read
from nrmap.atari.episode_seeds import VALIDATION_STREAM, episode_seeds
from nrmap.play.players import constant_player
from nrmap.play.rollout import play
from nrmap.policies.network import STATE_SCALE
from nrmap.policies.policy import Policy, save_policy
from train.checkpoint import save_checkpoint
from train.trainer import Trainer

CROSSED = replace(FREEWAY, max_agent_steps=120)  # long enough to get to the other side


def test_nothing_moves_a_constant_policy() -> None:
    policy = toy_policy(CROSSED)
    head = policy.network.advantage[2]
    with torch.no_grad():  # in every state UP (1) leads DOWN (2) by 0.5 and NOOP (0) by 1
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.0, 1.0, 0.5]))
    cells = look(policy, episodes=1, attacked_episodes=0, num_states=4, attack_epsilon=0.1)
    (episode,) = play(constant_player(1), CROSSED, episode_seeds(CROSSED, 0, 1, VALIDATION_STREAM), num_envs=1)
    assert episode.total_reward > 0
    shift, flipped, bound, certified = "0.0000", "0.0%", "-0.5", "100.0%"
    actions, gaps = "NOOP 0% UP 100% DOWN 0%", "0.500 0.500 0.500"
    assert cells == ["0", f"{episode.total_reward:.1f}", "—", actions, gaps, shift, "—", flipped, bound, certified]


def test_a_large_radius_flips_every_state(tmp_path, monkeypatch, capsys) -> None:
    policy, path = toy_policy(FREEWAY), tmp_path / "policy.safetensors"
    regulariser = {"solver": "pgd", "pgd_steps": 2, "pgd_step_fraction": 0.8}
    policy.card = replace(policy.card, settings={"regulariser": regulariser})
    save_policy(path, policy)
    options = "--episodes 1 --attacked-episodes 1 --states 4 --attack-epsilon 0.2"
    monkeypatch.setattr(sys, "argv", ["bench.robustness", str(path), *options.split()])
    main()
    header, _, row = ([cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines())
    cells = dict(zip(header, row, strict=True))
    expected = {"policy": str(tmp_path), "certified": "0.0%", "own flips": "100.0%", "flipped": "100.0%"}
    expected |= {"clean": "0.0", "PGD-10": "0.0"}  # in 40 steps nobody crosses
    assert cells.items() >= expected.items()
    assert float(cells["bound"]) > 0, "where the attack flips a state no bound can be below 0"


def test_a_checkpoint_is_read_as_the_policy_that_it_would_become(tmp_path, tiny_settings) -> None:
    settings = tiny_settings()
    trainer = Trainer(settings, device=torch.device("cpu"))
    for _ in zip(range(3), trainer.run(), strict=False):
        pass
    rollbacks = [{"agent_step": 40}]
    state = {"trainer": trainer.get_state(), "curves": {"rollbacks": rollbacks}}
    save_checkpoint(tmp_path / "checkpoint.safetensors", state)
    (tmp_path / "settings.json").write_text(json.dumps(asdict(settings)))
    policy = read(tmp_path / "checkpoint.safetensors")
    assert (policy.card.agent_steps, policy.env) == (3 * settings.num_envs, settings.env)
    assert policy.card.results["rollbacks"] == rollbacks
    online = trainer.learner.online
    save_policy(tmp_path / "policy.safetensors", Policy(online, settings.env, policy.card), torch.float16)
    states = torch.randint(256, (5, *settings.env.state_shape), dtype=torch.uint8)
    assert torch.equal(policy(states), read(tmp_path / "policy.safetensors")(states))
    torch.testing.assert_close(policy(states), online(states * STATE_SCALE), rtol=0, atol=1e-2)


def test_a_checkpoint_without_settings_or_of_another_kind_is_one_line(tmp_path, ended) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    save_checkpoint(checkpoint, {"trainer": {}})
    assert re.fullmatch("error: .*no file.*\n", ended(main, str(checkpoint))[2])
    (tmp_path / "settings.json").write_text("{}")
    _, out, err = ended(main, str(checkpoint))
    assert re.fullmatch("error: .*expected a checkpoint of a training.*\n", err)
    assert out == ""
