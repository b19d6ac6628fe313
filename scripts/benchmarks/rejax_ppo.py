"""rejax's PPO with the settings of the ``ppo`` benchmark; runs in an environment of its own (see docs/speed.md).

    python rejax_ppo.py STEPS SEEDS     environment steps per seed; seeds, vmapped

Differences that rejax does not let one set away: a constant learning rate, and gradients clipped by value, not by norm. Its
evaluations are left out of the timed part; the return is evaluated afterwards.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import rejax
from timing import compile_ahead, tell, timed


def main(steps: int, seeds: int) -> None:
    algorithm = rejax.PPO.create(
        env="CartPole-v1",
        num_envs=4,
        num_steps=128,
        num_epochs=4,
        num_minibatches=4,
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        learning_rate=2.5e-4,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        vf_coef=0.5,
        ent_coef=0.01,
        max_grad_norm=0.5,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    )
    evaluate = algorithm.eval_callback
    silent = algorithm.replace(eval_callback=lambda algorithm, state, rng: ())

    def train(keys):
        return jax.vmap(silent.train)(keys)[0]

    keys = jax.random.split(jax.random.PRNGKey(0), seeds)
    program, compiling = compile_ahead(train, keys)
    state, spent = timed(program, keys)
    _, returns = jax.jit(jax.vmap(lambda state, key: evaluate(algorithm, state, key)))(state, keys)
    tell({"steps": int(state.global_step.sum()), **spent, "compile_seconds": compiling, "returned": float(jnp.mean(returns))})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
