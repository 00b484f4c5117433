# SPDX-License-Identifier: Apache-2.0
"""Seconds to the first and second number by torch.func or curvlinops, everything imported.

Arguments: MODEL:TASK ARRAYS RESULT REPEATS; as in `first_number`.
"""

import json
import sys
import time

import numpy as np
import torch
from clock import arrays
from curvlinops import GGNLinearOperator
from scipy.sparse.linalg import eigsh
from torch_networks import ResNet20, Transformer, from_arrays, images_first, jacobian_kernel

torch.set_num_threads(1)  # Two, on two virtual cores, wait for each other.
MODEL, TASK = sys.argv[1].split(":")
data = arrays()
inputs = images_first(data.pop("x"))
data.pop("y", None)
if MODEL == "transformer":
    module = Transformer(*data["up"].shape[:2], len(data["positions"]))
else:
    module = ResNet20() if MODEL == "resnet20" else from_arrays(data)
module.eval()


def kernel():
    """The kernel from whole Jacobians."""
    return jacobian_kernel(module, inputs)


def curvlinops():
    """The kernel's largest eigenvalue: that of the Gauss-Newton matrix under the square loss."""
    params = list(module.parameters())
    with torch.no_grad():
        batch = [(inputs, torch.zeros_like(module(inputs)))]
    options = {"check_deterministic": False}
    operator = GGNLinearOperator(module, torch.nn.MSELoss(), params, batch, **options).to_scipy()
    return eigsh(operator, k=1, which="LA", tol=1e-4, return_eigenvectors=False)[0]


seconds = []
for _ in range(2):
    start = time.perf_counter()
    {"jacrev": kernel, "curvlinops": curvlinops}[TASK]()
    seconds.append(time.perf_counter() - start)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.01)
np.save(sys.argv[3], np.asarray(seconds))
sys.stdout.write(json.dumps({"first": seconds[0], "second": seconds[1]}))
