# SPDX-License-Identifier: Apache-2.0
"""Normalising flows: the logarithm of a density."""

import jax
import jax.numpy as jnp

from benchmarks.public.adaptors import KEY, Model, Shelf, numbers, of_haiku

FLOWS = Shelf("flows")


def _flowjax(name, **options):
    import equinox as eqx
    import paramax
    from flowjax import distributions, flows

    base = distributions.Normal(jnp.zeros(4))
    flow = getattr(flows, name)(KEY, base_dist=base, flow_layers=2, **options)
    arrays, rest = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda x: isinstance(x, paramax.NonTrainable)
    )

    def apply(arrays, x):
        return jax.vmap(paramax.unwrap(eqx.combine(arrays, rest)).log_prob)(x)

    return Model(apply, arrays, numbers(3, 4))


@FLOWS("flowjax", "coupling flow")
def _coupling():
    return _flowjax("coupling_flow", nn_width=6)


@FLOWS("flowjax", "masked autoregressive flow")
def _autoregressive():
    return _flowjax("masked_autoregressive_flow", nn_width=8)


@FLOWS("flowjax", "block neural autoregressive flow")
def _block():
    return _flowjax("block_neural_autoregressive_flow", nn_block_dim=3)


@FLOWS("flowjax", "planar flow, conditioned")
def _planar():
    return _flowjax("planar_flow")


@FLOWS("distrax", "RealNVP with Haiku")
def _real_nvp():
    import distrax
    import haiku as hk

    def density(x):
        mask, layers = jnp.arange(4) % 2 == 0, []
        for k in range(2):
            net = hk.nets.MLP([6, 8])

            def conditioner(x, net=net):
                return net(x).reshape(*x.shape, 2)

            def affine(p):
                return distrax.ScalarAffine(p[..., 0], log_scale=jnp.tanh(p[..., 1]))

            own = mask if k % 2 else ~mask
            layers.append(distrax.MaskedCoupling(own, conditioner, affine))
        base = distrax.MultivariateNormalDiag(jnp.zeros(4), jnp.ones(4))
        return distrax.Transformed(base, distrax.Chain(layers)).log_prob(x)

    return of_haiku(density, numbers(3, 4))


@FLOWS("nflojax", "RealNVP")
def _nflojax():
    from nflojax.builders import build_realnvp

    flow, params = build_realnvp(jax.random.PRNGKey(0), 4, 2, 6, 2)
    return Model(lambda params, x: flow.log_prob(params, x), params, numbers(3, 4))


@FLOWS("nflojax", "spline flow")
def _nflojax_spline():
    from nflojax.builders import build_spline_realnvp

    flow, params = build_spline_realnvp(jax.random.PRNGKey(0), 4, 2, 6, 2, num_bins=4)
    return Model(lambda params, x: flow.log_prob(params, x), params, numbers(3, 4))
