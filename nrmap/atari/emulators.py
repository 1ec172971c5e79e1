"""Emulators stepped frame by frame, for preprocessing that ale-py's vector environment does not have."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from os import cpu_count
from typing import Any

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from numpy.typing import NDArray

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.eyes import Screen, frame_of, visible_part
from nrmap.atari.games import rom_id
from nrmap.support.errors import check


class Emulator:
    """One game with the preprocessing of `spec`, except `newest_first`; `state` is uint8 [C, H, W], newest screen last.

    `state` is empty before `begin`. With `colour` it is [1, h, w, 3], the last RGB screen, cropped and padded but not
    resized. Raises NrmapError if the crop leaves no row.
    """

    def __init__(self, spec: EnvSpec, *, colour: bool = False) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._spec, self._colour = spec, colour
        self.ale = ALEInterface()
        self.ale.setFloat("repeat_action_probability", spec.sticky_actions)
        rom = roms.get_rom_path(rom_id(spec.game))
        assert rom is not None, "rom_id accepts only installed games"
        self._rom = rom
        self.ale.loadROM(rom)
        rows, crop = self.ale.getScreenDims()[0], f"crop_top={spec.crop_top}, crop_bottom={spec.crop_bottom}"
        check(spec.crop_top + spec.crop_bottom < rows, f"{crop}: {spec.game}'s screen has {rows} rows")
        self.actions = self.ale.getLegalActionSet() if spec.full_action_space else self.ale.getMinimalActionSet()
        self._has_fire = any(action.name == "FIRE" for action in self.actions)
        self._agent_steps = 0
        self.state: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)

    def begin(self, seed: int) -> int:
        """Start an episode and return its number of no-op frames.

        A negative `seed` leaves the emulator's seed as it is, and gives the no-ops of seed 0.
        """
        spec, ale = self._spec, self.ale
        if seed >= 0:
            ale.setInt("random_seed", seed)
            ale.loadROM(self._rom)  # takes over the seed
        ale.reset_game()
        if self._has_fire and spec.fire_reset == "frame":
            ale.act(self.actions[1])
        no_ops = int(np.random.default_rng(max(seed, 0)).integers(spec.noop_min, max(spec.noop_max, spec.noop_min + 1)))
        for _ in range(no_ops):
            ale.act(self.actions[0])
        self._screen = self._grab()
        self._press_fire()
        self._fill_stack()
        self._agent_steps = 0
        return no_ops

    def step(self, action: int) -> tuple[float, bool]:
        """Play one agent step; return its unclipped reward and whether a lost life began a fresh stack, see EnvSpec."""
        lives = self.ale.lives()
        reward = self._advance(action)
        self._agent_steps += 1
        restarted = self._spec.life_loss == "restarts" and 0 < self.ale.lives() < lives
        if restarted:
            reward += self._advance(0) + self._press_fire()
            self._fill_stack()
        else:
            self.state = np.concatenate([self.state[1:], self._frame()[None]])
        return reward, restarted

    @property
    def terminated(self) -> bool:
        """Whether the game is over."""
        return bool(self.ale.game_over())

    @property
    def truncated(self) -> bool:
        """Whether the step limit ended the episode before the game was over."""
        return self._agent_steps >= self._spec.max_agent_steps and not self.terminated

    def _press_fire(self) -> float:
        """Play the agent steps of `fire_reset`, if the game has FIRE; return their summed reward."""
        steps = {"step": (1,), "two_steps": (1, 2)}.get(self._spec.fire_reset, ()) if self._has_fire else ()
        return sum(self._advance(action) for action in steps)

    def _advance(self, action: int) -> float:
        """Repeat `action` for up to `frame_skip` frames, pool the last two screens, return the summed reward."""
        reward, screens, skip = 0.0, [], self._spec.frame_skip
        for frame in range(skip):
            reward += self.ale.act(self.actions[action])
            if frame >= skip - 2:
                screens.append(self._grab())
            if self.ale.game_over():
                break
        if screens:
            self._screen = np.maximum.reduce(screens)
        return reward

    def _grab(self) -> Screen:
        rgb = self._colour or self._spec.pooling == "rgb"
        return self.ale.getScreenRGB() if rgb else self.ale.getScreenGrayscale()

    def _frame(self) -> NDArray[np.uint8]:
        if not self._colour:
            return frame_of(self._screen, self._spec)
        part = visible_part(self._screen, self._spec)
        return part.swapaxes(0, 1) if self._spec.transposed else part

    def _fill_stack(self) -> None:
        frame, depth = self._frame(), 1 if self._colour else self._spec.frame_stack
        self.state = np.repeat(frame[None], depth, axis=0)
        if self._spec.stack_fill == "zeros":
            self.state[:-1] = 0


class Emulators:
    """E = `num_envs` emulators on threads, with the methods of AtariVectorEnv that `SeededVectorEnv` uses.

    With `colour` the states are RGB screens [E, 1, h, w, 3], cropped and padded like the grey ones.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, *, colour: bool) -> None:
        self._newest_first = spec.newest_first
        self._emulators = [Emulator(spec, colour=colour) for _ in range(num_envs)]
        self._pool = ThreadPoolExecutor(cpu_count())
        self._steps: list[Future[tuple[float, bool]]] = []
        self.actions = self._emulators[0].actions

    def reset(
        self, *, seed: NDArray[np.int32], options: Mapping[str, NDArray[np.bool_]]
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int32]]]:
        """Begin episodes where the reset mask [E] is True, one `seed` each, in order.

        Return all states [E, C, H, W], and a dict of lives [E] and of no-op frames [E], which are 0 where no episode
        began.
        """
        chosen = np.flatnonzero(options["reset_mask"])
        no_ops = np.zeros(len(self._emulators), dtype=np.int32)
        pairs = zip(chosen, seed, strict=True)
        begun = [self._pool.submit(self._emulators[emulator].begin, int(one)) for emulator, one in pairs]
        no_ops[chosen] = [future.result() for future in begun]
        return self._states(), {"lives": self._lives(), "episode_frame_number": no_ops}

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin one agent step of every emulator, with `actions` [E]."""
        pairs = zip(self._emulators, actions.tolist(), strict=True)
        self._steps = [self._pool.submit(emulator.step, action) for emulator, action in pairs]

    def recv(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, NDArray[Any]]]:
        """Wait for the step begun by `send`.

        Return states [E, C, H, W], rewards [E], terminated [E], truncated [E], and a dict of lives [E] and
        restarted [E].
        """
        rewards, restarted = zip(*(step.result() for step in self._steps), strict=True)
        terminated = np.array([emulator.terminated for emulator in self._emulators])
        truncated = np.array([emulator.truncated for emulator in self._emulators])
        info = {"lives": self._lives(), "restarted": np.array(restarted)}
        return self._states(), np.array(rewards), terminated, truncated, info

    def _states(self) -> NDArray[np.uint8]:
        states = np.stack([emulator.state for emulator in self._emulators])
        return states[:, ::-1].copy() if self._newest_first else states  # torch takes no negative stride

    def _lives(self) -> NDArray[np.int32]:
        return np.array([emulator.ale.lives() for emulator in self._emulators], dtype=np.int32)
