# SPDX-License-Identifier: Apache-2.0
"""A toy run that trains and measures a kernel on the devices it is given; also a program.

``python spread_toy.py STOP FLAGS...`` runs it from the command line; it is interrupted after STOP
stretches of its loop, if STOP is not negative. SPREAD_TOY_SLEEP is the seconds between stretches.
"""

import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import sharding

STEPS, EXAMPLES = 12, 16


def apply(params, inputs):
    return jnp.tanh(inputs @ params["w"]) @ params["v"]


def examples(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(EXAMPLES, 3)), rng.normal(size=(EXAMPLES, 2))


@jax.jit
def stretch(state, data, indices):
    def body(params, chosen):
        def loss(params):
            inputs, targets = (array[chosen] for array in data)
            return jnp.mean(jnp.square(apply(params, inputs) - targets))

        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), value

    params, losses = jax.lax.scan(body, state["params"], indices)
    return {"params": params, "key": state["key"]}, {"loss": losses}


def run_until(stop):
    """The experiment's `run`."""

    def run(config, *, progress):
        results, curves = {}, {}
        for seed in range(config.seeds):
            inputs, targets = examples(seed)
            keys = jax.random.split(jax.random.key(seed), 3)
            params = {
                "w": jax.random.normal(keys[0], (3, 4)), "v": jax.random.normal(keys[1], (4, 2))
            }  # fmt: skip
            rows = sharding.spread(inputs)
            kernel = progress.once(f"kernel/{seed}", lambda p=params, x=rows: _kernel(p, x))
            order = np.random.default_rng(seed).integers(0, EXAMPLES, (STEPS, 8))
            data, calls = sharding.replicate((inputs, targets)), iter(range(100))

            def advance(state, indices, data=data, calls=calls):
                if next(calls) == stop:
                    raise KeyboardInterrupt
                time.sleep(float(os.environ.get("SPREAD_TOY_SLEEP", 0)))
                return stretch(state, data, indices)

            state = sharding.replicate({"params": params, "key": keys[2]})
            batches = sharding.spread(order, axis=1)
            _, infos = progress.carry(f"train/{seed}", state, batches, advance, every=3)
            curves.setdefault("a/loss", []).append(infos["loss"])
            curves.setdefault("a/kernel", []).append(kernel["kernel"])
        results["a"] = {"loss": [float(line[-1]) for line in curves["a/loss"]]}
        return results, {name: np.stack(lines) for name, lines in curves.items()}

    return run


def _kernel(params, rows):
    kernel = jax.jit(lambda p, x: sharding.kernel(apply, p, x))(params, rows)
    if sharding.count() > 1:
        assert len(kernel.sharding.device_set) == sharding.count() == 4
        assert kernel.addressable_shards[0].data.shape[0] == EXAMPLES // 4
    return {"kernel": sharding.on_host(kernel)}


if __name__ == "__main__":
    import conftest
    import pytest

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    with pytest.MonkeyPatch.context() as patch:
        toy = conftest.toy.__wrapped__(patch)
        toy("run", run=run_until(int(sys.argv[1])))
        from experiments.__main__ import main

        sys.exit(main(["toy", "--quiet", "--save-every", "0", *sys.argv[2:]]))
