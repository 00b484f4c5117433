# SPDX-License-Identifier: Apache-2.0
"""Groups and a plan of a published model from shapes, and its tiny sibling pruned: one process.

`large_plan.py llama|qwen [stacked]`
"""

import json
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import plprune
from benchmarks.public import decoders
from plprune.costs import parameters
from plprune.functional import functional, stateless

FRACTION, MULTIPLE = 0.75, 128


def published(decoder) -> dict:
    """From shapes alone, with processor seconds and the resident memory in all."""
    start = time.process_time()
    model = nnx.eval_shape(decoder.make)
    parts = functional(model, call=decoder.call)
    tokens = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    groups = plprune.find_nodes(stateless(parts), parts.params, tokens)
    found = time.process_time()
    target = plprune.Target(parameters=FRACTION * parameters(parts.params))
    plan = plprune.plan(model, tokens, target=target, round_to=MULTIPLE, call=decoder.call)
    widths = {int(kept.sum()) % MULTIPLE for kept in plan.keep.values() if not kept.all()}
    if widths != {0} or plan.comparison.after.parameters > target.parameters:
        raise RuntimeError(f"the plan misses its target: {plan}")
    return {
        "parameters": parameters(parts.params),
        "groups": len(groups),
        "find": found - start,
        "plan": time.process_time() - found,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "text": str(plan),
    }


def gap(decoder) -> float:
    """Masked against shrunk of the tiny sibling, relative to the largest output."""
    parts = functional(decoder.make(), call=decoder.call)
    rng, apply = np.random.default_rng(0), stateless(parts)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), parts.params)
    tokens = jnp.asarray(rng.integers(0, 16, (2, 6)))
    groups = plprune.find_nodes(apply, params, tokens)
    keep = {name: rng.permutation(n) < (n + 1) // 2 for name, n in groups.prunable.items()}
    masked = apply(plprune.mask(params, groups, keep), tokens)
    small = plprune.resize(apply, groups, keep)(plprune.shrink(params, groups, keep), tokens)
    return float(abs(masked - small).max() / abs(masked).max())


if __name__ == "__main__":
    family, stacked = getattr(decoders, sys.argv[1]), "stacked" in sys.argv
    found = published(family(stacked=stacked))
    found["gap"] = gap(family(tiny=True, stacked=stacked))
    sys.stdout.write(json.dumps(found) + "\n")
