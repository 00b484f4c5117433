# SPDX-License-Identifier: Apache-2.0
"""Equivariant networks of atoms in space."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.public.adaptors import KEY, Shelf, numbers, of_equinox, of_haiku, of_linen

ATOMS = Shelf("atoms")
COUNT = 4


def _pairs():
    one, other = np.nonzero(~np.eye(COUNT, dtype=bool))
    return jnp.asarray(one), jnp.asarray(other)


@ATOMS("e3nn-jax", "tensor products and gates")
def _e3nn():
    import e3nn_jax as e3nn
    import haiku as hk

    def energy(places):
        sent, received = _pairs()

        def one(x):
            edges = e3nn.spherical_harmonics(
                "0e+1o+2e", e3nn.IrrepsArray("1o", x[sent] - x[received]), True
            )
            nodes = e3nn.IrrepsArray("1x0e", jnp.ones((COUNT, 1), x.dtype))
            for _ in range(2):
                parts = e3nn.tensor_product(nodes[sent], edges)
                parts = e3nn.haiku.Linear("6x0e + 4x0e + 2x1o + 2x2e")(parts)
                nodes = e3nn.gate(e3nn.scatter_sum(parts, dst=received, output_size=COUNT))
            return e3nn.haiku.Linear("2x0e")(nodes).array.sum(0)

        return hk.vmap(one, split_rng=False)(places)

    return of_haiku(energy, numbers(2, COUNT, 3))


@ATOMS("nequip-eqx", "NequIP")
def _nequip():
    import jraph
    from nequip_eqx.model import Nequip

    net = Nequip(
        KEY, 2, lmax=1, hidden_size=4, n_layers=2, radial_basis_size=4, radial_mlp_size=6,
        radial_mlp_layers=1,
    )  # fmt: skip
    sent, received = _pairs()

    def call(net, x):
        graph = jraph.GraphsTuple(
            {"positions": x, "species": jnp.array([0, 1, 0, 1])},
            {"shifts": jnp.zeros((len(sent), 3), x.dtype)}, received, sent,
            {"cell": None}, jnp.array([COUNT]), jnp.array([len(sent)]),
        )  # fmt: skip
        return jax.tree.leaves(net(graph))[0]

    return of_equinox(net, numbers(2, COUNT, 3), call)


@ATOMS("e3x", "message passing")
def _e3x():
    import e3x
    from flax import linen

    class Network(linen.Module):
        @linen.compact
        def __call__(self, places):
            def one(x):
                sent, received = _pairs()
                basis = e3x.nn.basis(
                    x[sent] - x[received], num=4, max_degree=1,
                    radial_fn=e3x.nn.reciprocal_bernstein,
                    cutoff_fn=lambda r: e3x.nn.smooth_cutoff(r, cutoff=9.0),
                )  # fmt: skip
                nodes = e3x.nn.Embed(2, 6)(jnp.array([0, 1, 0, 1]))
                for k in range(2):
                    y = e3x.nn.MessagePass(max_degree=1 - k)(
                        nodes, basis, dst_idx=received, src_idx=sent, num_segments=COUNT
                    )
                    nodes = e3x.nn.add(nodes, y)
                    nodes = e3x.nn.add(nodes, e3x.nn.Dense(6)(e3x.nn.silu(e3x.nn.Dense(5)(nodes))))
                return linen.Dense(2)(nodes[:, 0, 0].sum(0))

            mapped = {"variable_axes": {"params": None}, "split_rngs": {"params": False}}
            return linen.vmap(lambda _, x: one(x), **mapped)(self, places)

    return of_linen(Network(), numbers(2, COUNT, 3))
