"""One table of tiny cases for every world, agent, bonus and runner: the law tests walk it, so adding a method is adding a row.

A row's name begins with the option under ``configs/`` that it stands for, as ``ppo`` or ``ppo/recurrent``; ``test_configs.py`` fails
for an option, or for a builder, without a row. Rows are configuration entries: what ``_target_`` names is built from them as the
command line builds it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from envs.base import Spec
from exploration.laws.worlds import CODES, PIXELS, VECTOR, made_up

Entry = dict[str, Any]


def entry(target: str, **arguments: Any) -> Entry:
    return {"_target_": target, **arguments}


# --- worlds ------------------------------------------------------------------------------------------------------------

WORLDS: dict[str, Entry] = {
    "deep_sea": entry("envs.deep_sea.deep_sea", size=4),
    "deep_sea/index": entry("envs.deep_sea.deep_sea", size=4, observation="index"),
    "deep_sea/stochastic": entry("envs.deep_sea.deep_sea", size=4, stochastic=True),
    "gymnax": entry("envs.gymnax.gymnax", id="CartPole-v1", max_steps_in_episode=12),
    "gymnax/box_actions": entry("envs.gymnax.gymnax", id="MountainCarContinuous-v0", max_steps_in_episode=7),
    "gymnax/planes": entry("envs.gymnax.gymnax", id="Catch-bsuite"),
    "xminigrid": entry("envs.xminigrid.xminigrid", id="MiniGrid-DoorKey-5x5", max_steps=11),
    "xminigrid/full": entry("envs.xminigrid.xminigrid", id="MiniGrid-Empty-5x5", view="full", max_steps=11),
    "minigrid": entry("envs.minigrid.world.minigrid", id="MiniGrid-KeyCorridorS3R1-v0", max_steps=11),
    "minigrid/fixed": entry("envs.minigrid.world.minigrid", id="MiniGrid-DoorKey-5x5-v0", layout=1, random_start=3, max_steps=11),
    "minigrid/full": entry("envs.minigrid.world.minigrid", id="MiniGrid-ObstructedMaze-1Dlh-v0", view="full", max_steps=11),
    "minigrid/symbolic": entry("envs.minigrid.world.minigrid", id="MiniGrid-MultiRoom-N2-S4-v0", view="symbolic", max_steps=11),
    "tabular": entry("envs.tabular.tabular", id="riverswim_osband", horizon=9),
    "tabular/time": entry("envs.tabular.tabular", id="line", observation="time"),
    "tabular/continuing": entry("envs.tabular.tabular", id="six_arms", horizon=11, observation="index"),
    "tabular/grid": entry("envs.tabular.tabular", id="grid_world", bernoulli=True),
    "maze": entry("envs.maze.maze", size=7, max_steps=11),
    "maze/levels": entry("envs.maze.maze", size=5, num_levels=3, braid=0.5, view="partial", reward="none", max_steps=11),
    "maze/fixed": entry("envs.maze.maze", layout="u", view="cell", max_steps=11),
    "maze/own": entry("envs.maze.maze", layout=["#####", "#S.G#", "#####"], view="position"),
    "point_maze": entry("envs.point_maze.point_maze", max_steps=11),
    "point_maze/inertia": entry("envs.point_maze.point_maze", layout="spiral", dynamics="acceleration", noise=0.1, goal_in_observation=True, max_steps=11),
    "visual_grid": entry("envs.visual_grid.visual_grid", size=3, pixels=9, max_steps=11),
    "visual_grid/noise": entry("envs.visual_grid.visual_grid", size=3, observation="one_hot", reward="none", action_noise=0.5, max_steps=11),
    "visual_grid/index": entry("envs.visual_grid.visual_grid", size=4, observation="index", max_steps=11),
    "visual_grid/position": entry("envs.visual_grid.visual_grid", size=4, observation="position", max_steps=11),
    "point2d": entry("envs.point2d.point2d", max_steps=11),
    "point2d/graded": entry("envs.point2d.point2d", reward="graded", max_steps=11),
    "curling": entry("envs.curling.curling", max_steps=11),
    "hard_maze": entry("envs.hard_maze.hard_maze", max_steps=11),
    "hard_maze/kheperax": entry("envs.hard_maze.hard_maze", layout="kheperax", late_reward=True, max_steps=11),
    "redundant_arm": entry("envs.redundant_arm.redundant_arm", max_steps=11),
    "redundant_arm/published": entry("envs.redundant_arm.redundant_arm", max_steps=11, published_reward=True),
    "collect_ball": entry("envs.collect_ball.collect_ball", max_steps=11),
    "planar_arm": entry("envs.planar_arm.planar_arm", joints=3),
    "cartpole_swingup": entry("envs.cartpole_swingup.cartpole_swingup", max_steps=11),
    "cartpole_swingup/box": entry("envs.cartpole_swingup.cartpole_swingup", actions="continuous", max_steps=11),
    "taxi": entry("envs.taxi.taxi", pixels=36, max_steps=11),
    "taxi/dense": entry("envs.taxi.taxi", observation="codes", reward="dense", start="random", max_steps=11),
    "taxi/index": entry("envs.taxi.taxi", observation="index", max_steps=11),
    "taxi/one_hot": entry("envs.taxi.taxi", observation="one_hot", start="fixed", max_steps=11),
    "deep_sea/sticky": entry("envs.deep_sea.deep_sea", size=4, sticky_actions=0.5),
    "gymnax/tv": entry("envs.gymnax.gymnax", id="CartPole-v1", max_steps_in_episode=12, noisy_tv=3),
    "gymnax/box_actions_wrapped": entry("envs.gymnax.gymnax", id="MountainCarContinuous-v0", max_steps_in_episode=7, noisy_tv=2, sticky_actions=0.25),
}


HOST_WORLDS: dict[str, Entry] = {
    "gymnasium": entry("envs.gymnasium.gymnasium", id="CartPole-v1"),
    "gymnasium/mujoco": entry("envs.gymnasium.gymnasium", id="HalfCheetah-v5", info=["x_velocity"]),
    "gymnasium/minigrid": entry("envs.gymnasium.gymnasium", id="MiniGrid-DoorKey-5x5-v0"),
    "gymnasium/babyai": entry("envs.gymnasium.gymnasium", id="BabyAI-GoToObj-v0", text_size=16),
    "gymnasium/workers": entry("envs.gymnasium.gymnasium", id="FrozenLake-v1", workers=2),
    "gymnasium/sticky": entry("envs.gymnasium.gymnasium", id="CartPole-v1", sticky_actions=0.5),
    "gymnasium/noisy_tv": entry("envs.gymnasium.gymnasium", id="CartPole-v1", noisy_tv=2),
    "dm_control": entry("envs.dm_control.dm_control", id="walker-run", action_repeat=2),
    "dm_control/pixels": entry("envs.dm_control.dm_control", id="cartpole-swingup", pixels=16, frames=2, shadows=False),
    "robotics": entry("envs.robotics.robotics", id="FetchReach-v4"),
    "ant_maze": entry("envs.ant_maze.ant_maze", max_steps=7),
    "textworld": entry("envs.textworld.textworld", rooms=2, objects=3, quest_length=2, text_size=16),
    "atari": entry("envs.atari.atari", game="breakout"),
    "atari/noisy_tv": entry("envs.atari.atari", game="pong", noisy_tv=2, sticky_actions=0.25),
}


# --- agents ------------------------------------------------------------------------------------------------------------

AUGMENTED = spaces.Dict({"obs": CODES, "features": spaces.Box(0.0, 1.0, (6,), np.float32)})
PICTURES = spaces.Box(0, 255, (12, 12, 2), np.uint8)
BOX_ACTIONS = spaces.Box(np.float32([-2.0, 0.5]), np.float32([1.0, np.inf]))

ONE, TWO = ("extrinsic",), ("extrinsic", "intrinsic")


class AgentCase(NamedTuple):
    entry: Entry
    observation: spaces.Space = VECTOR
    action: spaces.Space = spaces.Discrete(3, start=2)
    streams: tuple[str, ...] = ONE

    @property
    def learns(self) -> bool:
        return not self.entry["_target_"].startswith("agents.random.")

    @property
    def rewarded(self) -> bool:
        """Whether it learns from rewards."""
        return not self.entry["_target_"].startswith("agents.behaviour_cloning.")


def tiny_ppo(**arguments: Any) -> Entry:
    """One full batch, so that the first update is one gradient step, and no clipping of its norm, which would couple the losses."""
    return entry("agents.ppo.ppo", **{"hidden": (8,), "epochs": 1, "minibatches": 1, "max_grad_norm": 1e9, **arguments})


AGENTS: dict[str, AgentCase] = {
    "random": AgentCase(entry("agents.random.random")),
    "random/box_actions": AgentCase(entry("agents.random.random"), action=BOX_ACTIONS),
    "repeated_random": AgentCase(entry("agents.random.repeated_random", mean_run=3.0)),
    "repeated_random/box_actions": AgentCase(entry("agents.random.repeated_random"), action=BOX_ACTIONS),
    "ppo": AgentCase(tiny_ppo()),
    "ppo/box_actions": AgentCase(tiny_ppo(), action=BOX_ACTIONS),
    "ppo/recurrent": AgentCase(tiny_ppo(recurrent=6, value_coef=0.0), streams=TWO),  # its layers would serve the values as well
    "ppo/codes": AgentCase(tiny_ppo(), CODES),
    "ppo/pixels": AgentCase(tiny_ppo(), PIXELS),
    "ppo/augmented": AgentCase(tiny_ppo(), AUGMENTED),
    "ppo/discrete_obs": AgentCase(tiny_ppo(), spaces.Discrete(5, start=1)),
    "ppo/heads": AgentCase(tiny_ppo(), streams=TWO),
    "ppo/sum": AgentCase(tiny_ppo(mix="sum"), streams=TWO),
    "ppo/sum_then_clip": AgentCase(tiny_ppo(mix="sum_then_clip"), streams=TWO),
    "ppo/everything": AgentCase(
        tiny_ppo(minibatches=2, epochs=2, value_clip=0.2, normalize_obs=True, normalize_rewards=True, max_grad_norm=0.5, entropy_schedule="linear"),
        streams=TWO,
    ),
}


def tiny_dqn(builder: str = "dqn", **arguments: Any) -> Entry:
    return entry(f"agents.{builder}.{builder}", **{"hidden": (8,), "learning_rate": 1e-2, "epsilon_start": 0.5, **arguments})


def tiny_sac(module: str = "sac", builder: str = "sac", **arguments: Any) -> Entry:
    return entry(f"agents.{module}.{builder}", **{"hidden": (8,), "learning_rate": 1e-2, **arguments})


REPLAY_AGENTS: dict[str, AgentCase] = {
    "dqn": AgentCase(tiny_dqn()),
    "dqn/plain": AgentCase(tiny_dqn(double=False, huber=True, initial_value=2.0, optimizer="rmsprop", target_rate=None, target_period=2)),
    "dqn/c51": AgentCase(tiny_dqn(distributional="c51", atoms=11, v_min=-3.0, v_max=3.0)),
    "dqn/codes": AgentCase(tiny_dqn(), CODES),
    "dqn/pixels": AgentCase(tiny_dqn(), PIXELS),
    "dqn/augmented": AgentCase(tiny_dqn(dueling=True), AUGMENTED),
    "dqn/discrete_obs": AgentCase(tiny_dqn(), spaces.Discrete(5, start=1)),
    "dqn/z_greedy": AgentCase(tiny_dqn(z_greedy=True, max_grad_norm=10.0)),
    "dqn/sum": AgentCase(tiny_dqn(), streams=TWO),
    "dqn/sum_then_clip": AgentCase(tiny_dqn(mix="sum_then_clip"), streams=TWO),
    "rainbow": AgentCase(tiny_dqn("rainbow", atoms=11, v_min=-3.0, v_max=3.0)),
    "bootstrapped_dqn": AgentCase(tiny_dqn("bootstrapped_dqn", heads=3)),
    "bootstrapped_dqn/masked": AgentCase(tiny_dqn("bootstrapped_dqn", heads=3, mask_probability=0.5, double=True)),
    "sac": AgentCase(tiny_sac(), action=BOX_ACTIONS),
    "sac/codes": AgentCase(tiny_sac(), CODES, BOX_ACTIONS),
    "sac/augmented": AgentCase(tiny_sac(), AUGMENTED, BOX_ACTIONS),
    "sac/sum_then_clip": AgentCase(tiny_sac(mix="sum_then_clip"), action=BOX_ACTIONS, streams=TWO),
    "redq": AgentCase(tiny_sac("redq", "redq", critics=3, policy_delay=1), action=BOX_ACTIONS),
    "droq": AgentCase(tiny_sac("redq", "droq", policy_delay=1), action=BOX_ACTIONS),
    "td3": AgentCase(tiny_sac("td3", "td3", policy_delay=1), action=BOX_ACTIONS),
    "epsilon_max_info": AgentCase(entry("agents.epsilon_max_info.epsilon_max_info", task=tiny_sac(), explorer=tiny_sac()), action=BOX_ACTIONS, streams=TWO),
    "epsilon_max_info_dqn": AgentCase(entry("agents.epsilon_max_info.epsilon_max_info", task=tiny_dqn(), explorer=tiny_dqn(heads=2), hold=3), streams=TWO),
    "random_reward_shift": AgentCase(tiny_sac("random_reward_shift", "random_reward_shift", policy_delay=1), action=BOX_ACTIONS),
    "td3/sum": AgentCase(tiny_sac("td3", "td3", policy_delay=1), action=BOX_ACTIONS, streams=TWO),
    "cql": AgentCase(tiny_sac("cql", "cql", min_q_weight=0.1, samples=2), action=BOX_ACTIONS),
    "cql/fixed": AgentCase(tiny_sac("cql", "cql", min_q_version=2, min_q_weight=0.1, lagrange_thresh=None, samples=2, entropy_backup=True), action=BOX_ACTIONS),
    "behaviour_cloning": AgentCase(entry("agents.behaviour_cloning.behaviour_cloning", hidden=(8,), learning_rate=1e-2)),
    "behaviour_cloning/box_actions": AgentCase(entry("agents.behaviour_cloning.behaviour_cloning", hidden=(8,)), CODES, BOX_ACTIONS),
    "bcq": AgentCase(tiny_sac("bcq", "bcq", vae_hidden=(8,), actor_learning_rate=1e-2, candidates=3), action=BOX_ACTIONS),
    "bcq/augmented": AgentCase(tiny_sac("bcq", "bcq", vae_hidden=(8,), candidates=3), AUGMENTED, BOX_ACTIONS),
    "max_info_sac": AgentCase(tiny_sac("max_info", "max_info_sac"), action=BOX_ACTIONS),
    "max_info_redq": AgentCase(tiny_sac("max_info", "max_info_redq", critics=3, policy_delay=1), action=BOX_ACTIONS),
    "drq": AgentCase(tiny_sac("drq", "drq", latent=6, augment=1, policy_delay=1), PICTURES, BOX_ACTIONS),
    "drq_v2": AgentCase(tiny_sac("drq", "drq_v2", latent=6, augment=1, shifts=(0.0, 1.0)), PICTURES, BOX_ACTIONS),
    "max_info_drq": AgentCase(tiny_sac("drq", "max_info_drq", latent=6, augment=1), PICTURES, BOX_ACTIONS),
    "td3/max_info": AgentCase(tiny_sac("td3", "td3", max_info=True, policy_delay=1), action=BOX_ACTIONS, streams=TWO),
    "max_info_drq_v2": AgentCase(tiny_sac("drq", "max_info_drq_v2", latent=6, augment=1), PICTURES, BOX_ACTIONS, streams=TWO),
    "sac/latent": AgentCase(tiny_sac(latent=6), action=BOX_ACTIONS),
}


# --- bonuses -----------------------------------------------------------------------------------------------------------


class BonusCase(NamedTuple):
    entry: Entry
    observation: spaces.Space = VECTOR
    action: spaces.Space = spaces.Discrete(3, start=1)

    def spec(self, **changed: Any) -> Spec:
        """A world that declares what every bonus might need."""
        return made_up(self.observation, self.action, **changed)


def counts(**arguments: Any) -> Entry:
    return entry("exploration.counts.counts", **{"capacity": 64, **arguments})


def rnd(**arguments: Any) -> Entry:
    return entry("exploration.rnd.rnd", **{"hidden": (8,), "embedding": 4, "learning_rate": 1e-2, "minibatches": 2, "warmup": 3, **arguments})


def e3b(**arguments: Any) -> Entry:
    return entry("exploration.e3b.e3b", **{"hidden": (8,), "embedding": 4, "minibatches": 2, **arguments})


def icm(**arguments: Any) -> Entry:
    return entry("exploration.icm.icm", **{"hidden": (8,), "embedding": 4, "minibatches": 2, **arguments})


def simhash(**arguments: Any) -> Entry:
    return entry("exploration.simhash.simhash", **{"bits": 16, "capacity": 64, **arguments})


def pseudo_counts(**arguments: Any) -> Entry:
    return entry("exploration.pseudo_counts.pseudo_counts", **{"size": 4, "levels": 4, "rows": 256, **arguments})


def cfn(**arguments: Any) -> Entry:
    tiny = {"coins": 6, "hidden": (8,), "capacity": 64, "batch_size": 16, "updates_per_batch": 20, "learning_rate": 1e-2, "warmup": 3}
    return entry("exploration.cfn.cfn", **{**tiny, **arguments})


def disagreement(**arguments: Any) -> Entry:
    return entry("exploration.disagreement.disagreement", **{"members": 3, "hidden": (8,), "embedding": 4, "minibatches": 2, **arguments})


def information_gain(**arguments: Any) -> Entry:
    return entry("exploration.information_gain.information_gain", **{"members": 3, "hidden": (8,), "learning_rate": 1e-2, **arguments})


def episodic_counts(**arguments: Any) -> Entry:
    return entry("exploration.episodic_counts.episodic_counts", **{"capacity": 16, **arguments})


def re3(**arguments: Any) -> Entry:
    return entry("exploration.re3.re3", **{"hidden": (8,), "embedding": 4, "memory": 16, **arguments})


def state_entropy(**arguments: Any) -> Entry:
    return entry("exploration.state_entropy.state_entropy", **{"hidden": (8,), "embedding": 4, "memory": 16, "minibatches": 2, **arguments})


def ride(**arguments: Any) -> Entry:
    return entry("exploration.ride.ride", **{"hidden": (8,), "embedding": 4, "capacity": 16, "minibatches": 2, **arguments})


def noveld(**arguments: Any) -> Entry:
    return entry("exploration.noveld.noveld", **{"hidden": (8,), "embedding": 4, "capacity": 16, "minibatches": 2, "warmup": 3, **arguments})


def ngu(**arguments: Any) -> Entry:
    tiny = {"neighbours": 2, "memory": 4, "hidden": (8,), "embedding": 4, "rnd_hidden": (8,), "rnd_embedding": 4, "minibatches": 2, "warmup": 3}
    return entry("exploration.ngu.ngu", **{**tiny, **arguments})


def byol_explore(**arguments: Any) -> Entry:
    return entry("exploration.byol_explore.byol_explore", **{"hidden": (8,), "embedding": 4, "minibatches": 2, **arguments})


BONUSES: dict[str, BonusCase] = {
    "none": BonusCase(entry("exploration.base.none")),
    "counts": BonusCase(counts()),
    "counts/batch": BonusCase(counts(scored="batch")),
    "counts/per_episode": BonusCase(counts(per_episode=True)),
    "counts/hashed": BonusCase(counts(key="observation")),
    "counts/hashed_batch": BonusCase(counts(key="observation", scored="batch")),
    "counts/first_visit": BonusCase(counts(payment="first_visit", per_episode=True, encoding="mask")),
    "counts/log_counts": BonusCase(counts(encoding="log_counts")),
    "rnd": BonusCase(rnd()),
    "rnd/some_samples": BonusCase(rnd(update_proportion=0.5, epochs=2)),
    "rnd/codes": BonusCase(rnd(), CODES),
    "rnd/discrete_obs": BonusCase(rnd(), spaces.Discrete(5, start=1)),
    "rnd/pixels": BonusCase(rnd(), PIXELS),
    "rnd/dict": BonusCase(rnd(), AUGMENTED),
    "re3": BonusCase(re3()),
    "re3/kth": BonusCase(re3(variant="kth", k=3)),
    "re3/short_memory": BonusCase(re3(memory=2)),
    "re3/codes": BonusCase(re3(), CODES),
    "re3/dict": BonusCase(re3(), AUGMENTED),
    "re3/discrete_obs": BonusCase(re3(), spaces.Discrete(5, start=1)),
    "re3/box_actions": BonusCase(re3(), action=BOX_ACTIONS),
    "re3/pixels": BonusCase(re3(), PIXELS),
    "state_entropy": BonusCase(state_entropy()),
    "state_entropy/global": BonusCase(state_entropy(per_episode=False, prior=0.0)),
    "state_entropy/codes": BonusCase(state_entropy(), CODES),
    "state_entropy/dict": BonusCase(state_entropy(), AUGMENTED),
    "state_entropy/discrete_obs": BonusCase(state_entropy(), spaces.Discrete(5, start=1)),
    "state_entropy/knn": BonusCase(state_entropy(density="knn", k=2)),
    "state_entropy/knn_random": BonusCase(state_entropy(density="knn", k=2, encoder="random"), AUGMENTED),
    "state_entropy/knn_box_actions": BonusCase(state_entropy(density="knn", k=2), action=BOX_ACTIONS),
    "e3b": BonusCase(e3b()),
    "e3b/random": BonusCase(e3b(encoder="random", skip_first=False, encoding="diagonal")),
    "e3b/box_actions": BonusCase(e3b(), action=BOX_ACTIONS),
    "e3b/discrete_obs": BonusCase(e3b(), spaces.Discrete(5, start=1)),
    "e3b/codes": BonusCase(e3b(), CODES),
    "simhash": BonusCase(simhash()),
    "simhash/batch": BonusCase(simhash(scored="batch")),
    "simhash/exact": BonusCase(simhash(table="exact")),
    "simhash/dict": BonusCase(simhash(table="exact", scored="batch"), AUGMENTED),
    "simhash/discrete_obs": BonusCase(simhash(), spaces.Discrete(5, start=1)),
    "simhash/pixels": BonusCase(simhash(), PIXELS),
    "pseudo_counts": BonusCase(pseudo_counts()),
    "pseudo_counts/batch": BonusCase(pseudo_counts(scored="batch", neighbours=0)),
    "pseudo_counts/gain": BonusCase(pseudo_counts(form="gain", levels=16), CODES),
    "pseudo_counts/dict": BonusCase(pseudo_counts(), AUGMENTED),
    "pseudo_counts/discrete_obs": BonusCase(pseudo_counts(), spaces.Discrete(5, start=1)),
    "pseudo_counts/pixels": BonusCase(pseudo_counts(scored="batch"), PIXELS),
    "cfn": BonusCase(cfn()),
    "cfn/step": BonusCase(cfn(scored="step", zero_init=True, coins=40)),
    "cfn/plain": BonusCase(cfn(prior=False, prioritized=False, optimizer="adam")),
    "cfn/discrete_obs": BonusCase(cfn(), spaces.Discrete(5, start=1)),
    "cfn/codes": BonusCase(cfn(), CODES),
    "cfn/dict": BonusCase(cfn(), AUGMENTED),
    "cfn/pixels": BonusCase(cfn(hidden=None), PIXELS),
    "disagreement": BonusCase(disagreement()),
    "disagreement/inverse": BonusCase(disagreement(encoder="inverse", epochs=2)),
    "disagreement/box_actions": BonusCase(disagreement(), action=BOX_ACTIONS),
    "disagreement/discrete_obs": BonusCase(disagreement(), spaces.Discrete(5, start=1)),
    "disagreement/codes": BonusCase(disagreement(), CODES),
    "information_gain": BonusCase(information_gain(), action=BOX_ACTIONS),
    "information_gain/noise": BonusCase(information_gain(noise=None, share=0.8), action=BOX_ACTIONS),
    "information_gain/discrete": BonusCase(information_gain(epochs=20), spaces.Discrete(5, start=1)),
    "information_gain/random": BonusCase(information_gain(predicts="random", embedding=4), action=BOX_ACTIONS),
    "information_gain/dict": BonusCase(information_gain(minibatches=2), AUGMENTED),
    "episodic_counts": BonusCase(episodic_counts()),
    "episodic_counts/first_visit": BonusCase(episodic_counts(kind="first_visit", key="observation")),
    "episodic_counts/codes": BonusCase(episodic_counts(key="observation"), CODES),
    "ride": BonusCase(ride()),
    "ride/random": BonusCase(ride(encoder="random", key="observation")),
    "ride/box_actions": BonusCase(ride(), action=BOX_ACTIONS),
    "ride/discrete_obs": BonusCase(ride(), spaces.Discrete(5, start=1)),
    "ride/codes": BonusCase(ride(key="observation"), CODES),
    "noveld": BonusCase(noveld()),
    "noveld/observation": BonusCase(noveld(key="observation", update_proportion=0.5, epochs=2)),
    "noveld/discrete_obs": BonusCase(noveld(), spaces.Discrete(5, start=1)),
    "noveld/codes": BonusCase(noveld(key="observation"), CODES),
    "noveld/pixels": BonusCase(noveld(), PIXELS),
    "ngu": BonusCase(ngu()),
    "ngu/random": BonusCase(ngu(encoder="random", neighbours=1, limit=1.0)),
    "ngu/box_actions": BonusCase(ngu(), action=BOX_ACTIONS),
    "ngu/discrete_obs": BonusCase(ngu(), spaces.Discrete(5, start=1)),
    "ngu/codes": BonusCase(ngu(), CODES),
    "byol_explore": BonusCase(byol_explore()),
    "byol_explore/box_actions": BonusCase(byol_explore(), action=BOX_ACTIONS),
    "byol_explore/discrete_obs": BonusCase(byol_explore(), spaces.Discrete(5, start=1)),
    "byol_explore/codes": BonusCase(byol_explore(), CODES),
    "icm": BonusCase(icm()),
    "icm/random": BonusCase(icm(encoder="random", epochs=2)),
    "icm/box_actions": BonusCase(icm(joint=False), action=BOX_ACTIONS),
    "icm/discrete_obs": BonusCase(icm(), spaces.Discrete(5, start=1)),
    "icm/codes": BonusCase(icm(), CODES),
    "icm/pixels": BonusCase(icm(encoder="random"), PIXELS),
}

INNER: dict[str, Entry] = {"counts": counts(), "rnd": rnd(hidden=()), "e3b": e3b(hidden=())}  # small: there are many combinations


def combined(name: str, **arguments: Any) -> Entry:
    return entry(f"exploration.combinators.{name}", **arguments)


# every combinator, around any bonus
COMBINATORS = {
    "scale": lambda inner: combined("scale", bonus=inner, factor=0.5),
    "clip": lambda inner: combined("clip", bonus=inner, low=0.05, high=0.7),
    "mask_terminal": lambda inner: combined("mask_terminal", bonus=inner),
    "schedule": lambda inner: combined("schedule", bonus=inner, decay=0.5, floor=0.1),
    "normalize": lambda inner: combined("normalize", bonus=inner),
    "every": lambda inner: combined("every", bonus=inner, period=2),
    "augment": lambda inner: combined("augment", bonus=inner),
    "ensemble": lambda inner: combined("ensemble", bonus=inner, size=2),
    "chain": lambda inner: combined("chain", bonuses=[combined("scale", bonus=counts(per_episode=True), factor=0.5), inner]),
    "product": lambda inner: combined("product", bonuses=[inner, counts(key="observation", scored="batch")]),
    "gate": lambda inner: combined("gate", bonus=inner, mask=counts(per_episode=True), above=0.9),
}
REFUSED = {"augment/rnd"}  # rows that must be refused when they are built
COMBINED: dict[str, BonusCase] = {f"{c}/{i}": BonusCase(make(inner)) for c, make in COMBINATORS.items() for i, inner in INNER.items()}
NESTED: dict[str, BonusCase] = {
    "nested/normalize_std": BonusCase(combined("normalize", bonus=counts(), by="std")),
    "nested/novelty_on_first_visits": BonusCase(
        combined(
            "normalize",
            bonus=combined("gate", bonus=combined("clip", bonus=INNER["rnd"], high=5.0), mask=counts(per_episode=True), above=0.9),
        )
    ),
    "nested/everything": BonusCase(
        combined(
            "augment",
            bonus=combined(
                "schedule",
                bonus=combined(
                    "chain",
                    bonuses=[
                        combined("every", bonus=combined("normalize", bonus=combined("mask_terminal", bonus=INNER["e3b"]), by="std")),
                        combined("product", bonuses=[counts(), counts(scored="batch")]),
                    ],
                ),
            ),
        )
    ),
}
BONUSES |= {name: case for name, case in (COMBINED | NESTED).items() if name not in REFUSED}


# --- runners -----------------------------------------------------------------------------------------------------------


class RunnerCase(NamedTuple):
    entry: Entry
    env: Entry = WORLDS["deep_sea"]
    agent: Entry = tiny_ppo()  # noqa: RUF009
    exploration: Entry = counts()  # noqa: RUF009

    @property
    def replays(self) -> bool:
        return self.entry["_target_"].endswith("off_policy")


def demonstration(steps: int) -> str:
    """A file of so many actions 0."""
    file = Path(tempfile.gettempdir()) / f"farlands-laws-{os.getuid()}-{steps}.npz"
    if not file.exists():
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".npz", delete=False) as draft:
            np.savez(draft, actions=np.zeros(steps, np.int64))
        os.replace(draft.name, file)
    return str(file)


RUNNERS: dict[str, RunnerCase] = {
    "backward": RunnerCase(
        entry(
            "runners.backward.backward",
            **{"demonstrations": demonstration(4), "lanes": 3, "rollout": 6, "window": 2, "move_every": 6},
            **{"context": 1, "imitation_lanes": 1, "start_temperature": 2.0, "start_steps": 1},
        )
    ),
    "on_policy": RunnerCase(entry("runners.on_policy.on_policy", lanes=2, rollout=6)),
    "on_policy/truncated": RunnerCase(entry("runners.on_policy.on_policy", lanes=2, rollout=16), WORLDS["gymnax/box_actions"], tiny_ppo(recurrent=6), e3b()),
    "policy_go_explore": RunnerCase(
        entry(
            "runners.policy_go_explore.policy_go_explore",
            **{"lanes": 3, "rollout": 6, "capacity": 16, "longest": 4, "erase_loops": True},
            **{"imitation_lanes": 1, "recordings": 4, "recorded": 4},
        )
    ),
    "off_policy": RunnerCase(
        entry("runners.off_policy.off_policy", lanes=2, rollout=6, updates=2, batch_size=4, capacity=64, learning_starts=12, random_steps=12, n_step=2),
        agent=entry("agents.random.random"),
    ),
}

OFFLINE: dict[str, RunnerCase] = {"offline": RunnerCase(entry("runners.offline.offline", updates=2), agent=entry("agents.random.random"))}  # makes no steps

ARCHIVES: dict[str, Entry] = {"go_explore": entry("exploration.go_explore.go_explore", capacity=2)}

EXPLORERS: dict[str, RunnerCase] = {
    "go_explore": RunnerCase(
        entry("runners.go_explore.go_explore", lanes=2, explore_steps=6), agent=entry("agents.random.repeated_random"), exploration=ARCHIVES["go_explore"]
    )
}

# --- searches over whole policies ----------------------------------------------------------------------------------------

CONTROLLERS: dict[str, Entry] = {
    "controller": entry("agents.controller.controller", hidden=(3,)),
    "controller/unit": entry("agents.controller.controller", hidden=(), bias="unit", activation="relu", normalize=True),
    "open_loop": entry("agents.controller.open_loop"),
}

POPULATIONS: dict[str, Entry] = {
    "novelty_search": entry("exploration.novelty_search.novelty_search", population=6, neighbours=3, added=2, capacity=4),
    "novelty_search/best": entry(
        "exploration.novelty_search.novelty_search", population=6, neighbours=3, added=2, add="best", objectives=["novelty", "fitness"]
    ),
    "novelty_search/threshold": entry(
        "exploration.novelty_search.novelty_search",
        population=6,
        neighbours=3,
        add="threshold",
        objectives=["novelty", "competition"],
        initial="uniform",
        capacity=4,
    ),
    "map_elites": entry("exploration.map_elites.map_elites", cells=[5, 4], batch=6),
    "map_elites/iso_line": entry("exploration.map_elites.map_elites", cells=[5, 4], batch=6, variation="iso_line", initial="uniform", ties=False),
    "map_elites/cvt": entry("exploration.map_elites.map_elites", archive="cvt", centroids=12, batch=6),
    "serene": entry("exploration.serene.serene", population=4, neighbours=3, chunk=24, emitter_population=2, capacity=8, emitters=1),
    "serene/cma_es": entry(
        "exploration.serene.serene", emitter="cma_es", schedule="bandit", population=4, neighbours=3, chunk=24, emitter_population=2, capacity=8
    ),
    "serene/signature": entry(
        "exploration.serene.serene", population=4, neighbours=3, chunk=24, capacity=256, exploit=False, descriptor="signature", time=True
    ),
    "taxons": entry("exploration.taxons.taxons", population=4, neighbours=3, chunk=24, capacity=256, pixels=16, latent=2, epochs=2),
    "stax": entry("exploration.taxons.stax", population=4, chunk=24, emitter_population=2, capacity=256, emitters=64, frames=2, pixels=16, latent=2, epochs=2),
    "cma_me": entry("exploration.cma_me.cma_me", cells=[5, 4], emitters=2, samples=4),
    "cma_me/optimizing": entry("exploration.cma_me.cma_me", cells=[5, 4], emitters=2, samples=4, ranking="optimizing", schedule="fewest", ties=True),
    "cma_me/bandit": entry("exploration.cma_me.cma_me", archive="cvt", centroids=12, emitters=3, samples=4, schedule="bandit"),
    "cma_me/random_direction": entry("exploration.cma_me.cma_me", cells=[5, 4], emitters=2, samples=4, ranking="random_direction", initial="uniform"),
    "evolution_strategy": entry("exploration.evolution_strategy.evolution_strategy", cells=[5, 4], pairs=3),
    "random_search": entry("exploration.random_search.random_search", cells=[5, 4], batch=6),
}

SEARCHES: dict[str, RunnerCase] = {
    "population": RunnerCase(entry("runners.population.population", cells=[5, 4]), WORLDS["point2d"], CONTROLLERS["controller"], POPULATIONS["novelty_search"])
}

TABLES: dict[str, dict[str, Any]] = {
    "env": WORLDS | HOST_WORLDS,
    "agent": AGENTS | REPLAY_AGENTS | CONTROLLERS,
    "exploration": BONUSES | ARCHIVES | POPULATIONS,
    "runner": RUNNERS | OFFLINE | EXPLORERS | SEARCHES,
}


def entry_of(row: Any) -> Entry:
    return row if isinstance(row, dict) else row.entry


def targets(part: Any) -> set[str]:
    """Every builder named in an entry, nested ones included."""
    if isinstance(part, dict):
        return {v for k, v in part.items() if k == "_target_"} | {t for v in part.values() for t in targets(v)}
    return {t for v in part for t in targets(v)} if isinstance(part, (list, tuple)) else set()
