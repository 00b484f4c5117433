# SPDX-License-Identifier: Apache-2.0
"""Half of every group of a CIFAR ResNet-20 by Torch-Pruning: groups, parameters, forward passes.

Arguments: METHOD ARRAYS RESULT REPEATS; the method has no meaning here. The models take turns, and
their medians are reported as `dense` and `pruned`.
"""

import time

import numpy as np
import torch
import torch_pruning as tp
from clock import arrays, report
from torch_networks import ResNet20


def count(model):
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


torch.manual_seed(0)
torch.set_num_threads(1)  # Two, on two virtual cores, wait for each other: three times slower.
images = torch.from_numpy(arrays()["x"]).permute(0, 3, 1, 2).contiguous()
models = {"dense": ResNet20().eval(), "pruned": ResNet20().eval()}
pruned = models["pruned"]
start = time.perf_counter()
tp.DependencyGraph().build_dependency(pruned, example_inputs=images[:1])
discovery = time.perf_counter() - start
tp.pruner.MagnitudePruner(
    pruned, images[:1], tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5,
    ignored_layers=[pruned.output],
).step()  # fmt: skip
seconds = {name: [] for name in models}


def forward_passes():
    """One of each model."""
    with torch.no_grad():
        for name, model in models.items():
            start = time.perf_counter()
            model(images)
            seconds[name].append(time.perf_counter() - start)
    return np.zeros(1)


def median(name):
    """Without the first pass, which allocates."""
    return float(np.median(seconds[name][1:]))


report(
    forward_passes,
    np.asarray,
    parameters={name: count(model) for name, model in models.items()},
    discovery=discovery,
    dense=lambda: median("dense"),
    pruned=lambda: median("pruned"),
)
