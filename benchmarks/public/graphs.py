# SPDX-License-Identifier: Apache-2.0
"""Networks on graphs: a batch of graphs of one shape, with edges of their own."""

import jax
import jax.numpy as jnp

from benchmarks.public.adaptors import Model, Shelf, numbers, of_linen, of_nnx, tokens

GRAPHS = Shelf("graphs")
NODES, EDGES = 9, 12


def _batch(features=3):
    return {
        "nodes": numbers(4, NODES, features),
        "edges": numbers(4, EDGES, 2, seed=1),
        "senders": tokens(4, EDGES, below=NODES),
        "receivers": tokens(4, EDGES, below=NODES)[:, ::-1],
    }


def _jraph(make, features=3):
    """A function of one `GraphsTuple` and a dictionary of dense layers."""
    import jraph

    layers = {}

    def dense(name, size_in, size_out):
        seed = len(layers)
        layers[name] = {"w": numbers(size_in, size_out, seed=seed), "b": numbers(size_out, seed=9)}

    read = make(dense)

    def apply(params, batch):
        def one(graph):
            graph = jraph.GraphsTuple(
                graph["nodes"], graph["edges"], graph["receivers"], graph["senders"],
                jnp.zeros((1, 1), graph["nodes"].dtype), jnp.array([NODES]), jnp.array([EDGES]),
            )  # fmt: skip
            return read(params, graph)

        return jax.vmap(one)(batch)

    return Model(apply, layers, _batch(features))


def _dense(params, x):
    return x @ params["w"] + params["b"]


@GRAPHS("jraph", "graph convolutions")
def _convolutions():
    import jraph

    def make(dense):
        dense("first", 3, 6)
        dense("second", 6, 5)
        dense("head", 5, 2)

        def read(params, graph):
            for name in ("first", "second"):
                graph = jraph.GraphConvolution(
                    lambda x, name=name: jax.nn.relu(_dense(params[name], x)), add_self_edges=True
                )(graph)
            return _dense(params["head"], graph.nodes.mean(0))

        return read

    return _jraph(make)


@GRAPHS("jraph", "graph attention")
def _attention():
    import jraph

    def make(dense):
        dense("query", 3, 6)
        dense("logit", 14, 1)
        dense("head", 6, 2)

        def read(params, graph):
            def logits(sent, received, edges):
                pair = jnp.concatenate([sent, received, edges], 1)
                return jax.nn.leaky_relu(_dense(params["logit"], pair))

            graph = jraph.GAT(lambda x: _dense(params["query"], x), logits)(graph)
            return _dense(params["head"], jax.nn.elu(graph.nodes).sum(0))

        return read

    return _jraph(make)


@GRAPHS("jraph", "graph network")
def _network():
    import jraph

    def make(dense):
        dense("edge", 9, 6)
        dense("node", 16, 5)
        dense("global", 12, 4)
        dense("head", 4, 2)

        def updated(name):
            def update(*parts):
                return jax.nn.relu(_dense(update.params[name], jnp.concatenate(parts, -1)))

            return update

        edge, node, whole = map(updated, ("edge", "node", "global"))

        def read(params, graph):
            edge.params = node.params = whole.params = params
            graph = jraph.GraphNetwork(edge, node, whole)(graph)
            return _dense(params["head"], graph.globals[0])

        return read

    return _jraph(make)


@GRAPHS("jraph", "interaction network")
def _interaction():
    import jraph

    def make(dense):
        dense("edge", 8, 6)
        dense("node", 9, 5)
        dense("head", 5, 2)

        def read(params, graph):
            def edge(*parts):
                return jax.nn.relu(_dense(params["edge"], jnp.concatenate(parts, -1)))

            def node(*parts):
                return jax.nn.relu(_dense(params["node"], jnp.concatenate(parts, -1)))

            graph = jraph.InteractionNetwork(edge, node)(graph)
            return _dense(params["head"], graph.nodes.max(0))

        return read

    return _jraph(make)


@GRAPHS("jraph", "deep sets")
def _deep_sets():
    import jraph

    def make(dense):
        dense("node", 4, 6)
        dense("global", 6, 5)
        dense("head", 5, 2)

        def read(params, graph):
            def node(nodes, globals_):
                return jax.nn.relu(_dense(params["node"], jnp.concatenate([nodes, globals_], -1)))

            def whole(nodes):
                return jax.nn.relu(_dense(params["global"], nodes))

            return _dense(params["head"], jraph.DeepSets(node, whole)(graph).globals[0])

        return read

    return _jraph(make)


def _jraphx(make):
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.body = make(rngs)
            self.head = nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, batch):
            def one(graph):
                edges = jnp.stack([graph["senders"], graph["receivers"]])
                return self.head(jax.nn.relu(self.body(graph["nodes"], edges)).mean(0))

            return jax.vmap(one)(batch)

    batch = {name: x for name, x in _batch().items() if name != "edges"}
    return of_nnx(Network(nnx.Rngs(0)), batch)


@GRAPHS("jraphx", "GCN")
def _gcn():
    from jraphx.nn.models import GCN

    return _jraphx(lambda rngs: GCN(3, 6, 2, 6, rngs=rngs))


@GRAPHS("jraphx", "GraphSAGE")
def _sage():
    from jraphx.nn.models import GraphSAGE

    return _jraphx(lambda rngs: GraphSAGE(3, 6, 2, 6, rngs=rngs))


@GRAPHS("jraphx", "GIN")
def _gin():
    from jraphx.nn.models import GIN

    return _jraphx(lambda rngs: GIN(3, 6, 2, 6, rngs=rngs))


@GRAPHS("jraphx", "GAT, 2 heads")
def _gat():
    from jraphx.nn.models import GAT

    return _jraphx(lambda rngs: GAT(3, 6, 2, 6, heads=2, rngs=rngs))


@GRAPHS("jraphx", "GATv2, 2 heads")
def _gat_v2():
    from jraphx.nn.models import GAT

    return _jraphx(lambda rngs: GAT(3, 6, 2, 6, heads=2, v2=True, rngs=rngs))


@GRAPHS("jraphx", "graph transformer")
def _graph_transformer():
    from jraphx.nn.conv import TransformerConv

    return _jraphx(lambda rngs: TransformerConv(3, 3, heads=2, rngs=rngs))


@GRAPHS("nanodl", "dense graph attention")
def _dense_attention():
    from nanodl.__src.experimental.gat import GAT

    adjacency = (numbers(NODES, NODES, seed=3) > 0).astype(float)
    return of_linen(GAT(3, 4, 2, 0.0, 0.2, 2), (numbers(NODES, 3), adjacency))


@GRAPHS("sake-gnn", "SAKE")
def _sake():
    from sake.models import DenseSAKEModel

    inputs = (numbers(4, NODES, 3), numbers(4, NODES, 3, seed=1))
    whole = of_linen(DenseSAKEModel(6, 3, depth=2, n_heads=2), inputs)
    return whole._replace(apply=lambda params, inputs: whole.apply(params, inputs)[0].sum(1))
