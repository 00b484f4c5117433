# SPDX-License-Identifier: Apache-2.0
"""Neural operators and networks of physics: fields on grids, coordinates, flows in time."""

import jax.numpy as jnp

from benchmarks.public.adaptors import KEY, Shelf, numbers, of_equinox, of_nnx

OPERATORS = Shelf("operators")


def _emulator(name, **options):
    """A network of `pdequinox` on fields of two channels along one axis."""
    import pdequinox

    network = getattr(pdequinox.arch, name)(1, 2, 1, key=KEY, **options)
    return of_equinox(network, numbers(3, 2, 16))


@OPERATORS("pdequinox", "Fourier neural operator")
def _fno():
    return _emulator("ClassicFNO", hidden_channels=6, num_modes=4, num_blocks=2)


@OPERATORS("pdequinox", "U-Net")
def _unet():
    return _emulator("ClassicUNet", hidden_channels=6, num_levels=2, use_norm=False)


@OPERATORS("pdequinox", "modern U-Net, with norms")
def _modern_unet():
    return _emulator("ModernUNet", hidden_channels=4, num_levels=2, num_blocks=1)


@OPERATORS("pdequinox", "residual network")
def _residual():
    return _emulator("ClassicResNet", hidden_channels=6, num_blocks=2)


@OPERATORS("pdequinox", "dilated residual network, with norms")
def _dilated():
    return _emulator("DilatedResNet", hidden_channels=4, num_blocks=1, dilation_rates=(1, 2, 1))


@OPERATORS("neojax-operators", "Fourier neural operator")
def _neojax_fno():
    from neojax.models.fno import FNO

    return of_equinox(FNO(KEY, 2, 1, 6, 2, (4,)), numbers(3, 2, 16))


@OPERATORS("neojax-operators", "Tucker-factored operator")
def _tfno():
    from neojax.models.tfno import TFNO

    return of_equinox(TFNO(KEY, 2, 1, 6, 2, (4,), 3), numbers(3, 2, 16))


@OPERATORS("neojax-operators", "DeepONet")
def _deeponet():
    from neojax.models.deeponet import MLPDeepONet

    network = MLPDeepONet(KEY, 5, 2, 6, (7, 6), (7, 6))
    inputs = (numbers(3, 5), numbers(3, 2, seed=1))
    return of_equinox(network, inputs, lambda network, pair: network(*pair))


@OPERATORS("foundax", "Fourier neural operator in 2-D")
def _foundax_fno():
    from foundax.architectures.fno import FNO2D

    network = FNO2D(2, 6, 3, n_layers=2, d_model=(8, 8), training=False, key=KEY)
    return of_equinox(network, numbers(3, 8, 8, 2))


@OPERATORS("foundax", "U-Net in 2-D, with batch norm")
def _foundax_unet():
    from foundax.architectures.unet import UNet2D

    return of_equinox(UNet2D(2, 1, depth=2, wf=2, norm=None, key=KEY), numbers(3, 8, 8, 2))


@OPERATORS("foundax", "DeepONet with sine trunk")
def _sine_trunk():
    from foundax.architectures.deeponet import DeepONet

    network = DeepONet(
        trunk_type="siren", n_sensors=5, coord_dim=2, basis_functions=6,
        branch_hidden_dims=(7, 6), trunk_hidden_dims=(7, 6), key=KEY,
    )  # fmt: skip
    inputs = (numbers(3, 5), numbers(3, 2, seed=1))
    return of_equinox(network, inputs, lambda network, pair: network(*pair))


@OPERATORS("foundax", "multigrid operator (MgNO)")
def _mgno():
    from foundax.architectures.mgno import MgNO

    network = MgNO((8, 8), 2, 6, 2, [(1, 1), (1, 1)], key=KEY)
    return of_equinox(network, numbers(3, 8, 8, 2))


@OPERATORS("opifex", "Fourier neural operator")
def _opifex_fno():
    from flax import nnx
    from opifex.neural.operators.fno.base import FourierNeuralOperator

    network = FourierNeuralOperator(2, 1, 6, 3, 2, rngs=nnx.Rngs(0))
    return of_nnx(network, numbers(3, 2, 8, 8))


@OPERATORS("opifex", "local Fourier neural operator")
def _opifex_local():
    from flax import nnx
    from opifex.neural.operators.fno.local import LocalFourierNeuralOperator

    network = LocalFourierNeuralOperator(2, 1, 6, (3, 3), 2, rngs=nnx.Rngs(0))
    return of_nnx(network, numbers(3, 2, 8, 8))


@OPERATORS("opifex", "U-shaped Fourier neural operator")
def _opifex_ufno():
    from flax import nnx
    from opifex.neural.operators.fno.ufno import UFourierNeuralOperator

    network = UFourierNeuralOperator(2, 1, 4, (3, 3), num_levels=1, rngs=nnx.Rngs(0))
    return of_nnx(network, numbers(3, 2, 8, 8))


def _kan(layer, **options):
    from jaxkan.models.KAN import KAN

    return of_nnx(KAN([3, 6, 5, 2], layer, options), numbers(4, 3))


@OPERATORS("jaxkan", "KAN, splines")
def _kan_splines():
    return _kan("spline", k=3, G=4)


@OPERATORS("jaxkan", "KAN, Chebyshev polynomials")
def _kan_chebyshev():
    return _kan("chebyshev", D=4)


@OPERATORS("jaxkan", "KAN, Fourier series")
def _kan_fourier():
    return _kan("fourier", D=4)


@OPERATORS("jaxkan", "KAN, radial functions")
def _kan_radial():
    return _kan("rbf", D=4)


@OPERATORS("jaxkan", "ActNet")
def _actnet():
    from jaxkan.models.ActNet import ActNet

    return of_nnx(ActNet([3, 6, 5, 2]), numbers(4, 3))


@OPERATORS("diffrax", "neural ODE, fixed steps")
def _ode_fixed():
    return _ode(0.1, None)


@OPERATORS("diffrax", "neural ODE, steps by error")
def _ode_adaptive():
    import diffrax

    return _ode(None, diffrax.PIDController(rtol=1e-3, atol=1e-4))


def _ode(step, controller):
    import diffrax
    import equinox as eqx

    class Network(eqx.Module):
        field: eqx.nn.MLP
        head: eqx.nn.Linear

        def __call__(self, x):
            solved = diffrax.diffeqsolve(
                diffrax.ODETerm(lambda _, y, __: self.field(y)), diffrax.Tsit5(), 0.0, 1.0,
                step, x, stepsize_controller=controller or diffrax.ConstantStepSize(),
                max_steps=64,
            )  # fmt: skip
            return self.head(solved.ys[-1])

    field = eqx.nn.MLP(3, 3, 8, 2, jnp.tanh, key=KEY)
    return of_equinox(Network(field, eqx.nn.Linear(3, 2, key=KEY)), numbers(3, 3))
