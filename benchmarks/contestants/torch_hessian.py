# SPDX-License-Identifier: Apache-2.0
"""The Hessian's largest eigenvalue by curvlinops with ARPACK, or by PyHessian.

Arguments: METHOD ARRAYS RESULT REPEATS.
"""

import sys

import numpy as np
import torch
from clock import arrays, report
from torch_networks import from_arrays

data = arrays()
x, y = torch.from_numpy(data.pop("x")), torch.from_numpy(data.pop("y"))
model, loss = from_arrays(data), torch.nn.CrossEntropyLoss()
count = [0]


def curvlinops():
    """ARPACK on its Hessian operator."""
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import LinearOperator, eigsh

    params = list(model.parameters())
    operator = HessianLinearOperator(model, loss, params, [(x, y)], check_deterministic=False)
    scipy_operator = operator.to_scipy()
    count[0] = 0

    def product(v):
        count[0] += 1
        return scipy_operator @ v

    counted = LinearOperator(scipy_operator.shape, matvec=product, dtype=np.float32)
    start = np.random.default_rng(0).normal(size=counted.shape[0]).astype(np.float32)
    return eigsh(counted, k=1, which="LA", tol=1e-4, v0=start, return_eigenvectors=False)[0]


def pyhessian():
    """Its power iteration."""
    from pyhessian import hessian

    return hessian(model, loss, data=(x, y), cuda=False).eigenvalues(maxIter=100, tol=1e-3)[0][0]


method = {"curvlinops": curvlinops, "pyhessian": pyhessian}[sys.argv[1]]
report(method, np.asarray, products=lambda: count[0])
