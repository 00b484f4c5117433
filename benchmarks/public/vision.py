# SPDX-License-Identifier: Apache-2.0
"""Networks of images."""

import os

import jax

from benchmarks.public.adaptors import (
    KEY,
    Shelf,
    numbers,
    of_equinox,
    of_haiku,
    of_keras,
    of_linen,
    of_nnx,
)

VISION = Shelf("vision")


@VISION("dm-haiku", "MobileNet")
def _mobilenet():
    import haiku as hk

    def network(x, training=False):
        return hk.nets.MobileNetV1((1, 2), (6, 8), 5)(x, is_training=training)

    return of_haiku(network, numbers(2, 16, 16, 3), training=True)


@VISION("dm-haiku", "ResNet-v2, bottlenecks")
def _haiku_resnet():
    import haiku as hk

    def network(x, training=False):
        net = hk.nets.ResNet((1, 1, 1, 1), 5, resnet_v2=True, channels_per_group=(8, 8, 16, 16))
        return net(x, is_training=training)

    return of_haiku(network, numbers(2, 32, 32, 3), training=True)


@VISION("dm-haiku", "vector-quantised autoencoder")
def _vqvae():
    import haiku as hk

    def network(x):
        x = jax.nn.relu(hk.Conv2D(6, 4, 2)(x))
        x = hk.nets.VectorQuantizerEMA(4, 8, 0.25, 0.99)(hk.Conv2D(4, 1)(x), False)["quantize"]
        return hk.Conv2DTranspose(3, 4, 2)(jax.nn.relu(hk.Conv2D(5, 3)(x)))

    return of_haiku(network, numbers(2, 8, 8, 3))


@VISION("jax-resnet", "ResNet, basic blocks")
def _jax_resnet():
    from jax_resnet.resnet import ResNet, ResNetBlock

    net = ResNet(ResNetBlock, stage_sizes=[1, 1], n_classes=5, hidden_sizes=(6, 8))
    return of_linen(net, numbers(2, 32, 32, 3))


@VISION("image-classification-jax", "ResNet")
def _classification_resnet():
    from image_classification_jax.models.resnet import ResNet, ResNetBlock

    net = ResNet([1, 1], ResNetBlock, 5, num_filters=6)
    return of_linen(net, numbers(2, 16, 16, 3), is_training=False)


@VISION("image-classification-jax", "ViT with registers")
def _classification_vit():
    from image_classification_jax.models.ViT import Transformer

    net = Transformer(n_layers=2, enc_dim=8, n_heads=2, n_empty_registers=2, output_dim=5)
    return of_linen(net, numbers(2, 32, 32, 3), is_training=False)


@VISION("flaxmodels", "VGG-16")
def _vgg():
    from flaxmodels.vgg import VGG16

    net = VGG16(output="logits", pretrained=None, include_head=False, normalize=False)
    return of_linen(net, numbers(2, 32, 32, 3), train=False)


def _equimo(make, size=16):
    net = make(__import__("equimo.models", fromlist=["models"]))
    return of_equinox(net, numbers(2, 3, size, size), lambda net, x: net(x, KEY, inference=True))


@VISION("equimo", "MobileNet-v3")
def _equimo_mobilenet():
    layers = [
        (8, 8, 3, 2, True, "relu"),
        (8, 12, 3, 2, False, "relu"),
        (10, 16, 3, 1, True, "hard_swish"),
    ]
    return _equimo(lambda m: m.MobileNetv3(3, layers, last_channels=12, num_classes=5, key=KEY), 32)


@VISION("equimo", "ConvNeXt")
def _convnext():
    return _equimo(
        lambda m: m.ConvNeXt(3, depths=[1, 1, 1, 1], dims=[4, 6, 8, 8], num_classes=5, key=KEY), 32
    )


@VISION("equimo", "ViT with registers")
def _equimo_vit():
    return _equimo(lambda m: m.VisionTransformer(16, 3, 8, 8, 2, [2], num_classes=5, key=KEY))


@VISION("equimo", "linear attention (MLLA)")
def _mlla():
    return _equimo(
        lambda m: m.Mlla(16, 3, dim=8, depths=[1, 1], num_heads=[2, 2], num_classes=5, key=KEY)
    )


@VISION("equimo", "state-space duality (VSSD)")
def _vssd():
    options = {"attentions_layers": ("mamba2mixer", "attention"), "d_state": 4}
    return _equimo(
        lambda m: m.Vssd(
            16, 3, dim=8, depths=[1, 1], num_heads=[2, 2], num_classes=5, key=KEY, **options
        )
    )


@VISION("jimmy-vision", "DINOv2")
def _dino():
    from flax import nnx
    from jimmy.models.vit import DinoV2

    net = DinoV2(img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, rngs=nnx.Rngs(0))
    return of_nnx(net, numbers(2, 16, 16, 3))


@VISION("jimmy-vision", "MambaVision")
def _mamba_vision():
    from flax import nnx
    from jimmy.models.mamba import MambaVision

    net = MambaVision(
        3, 8, 4, [1, 1, 2, 2], [8, 8, 2, 1], [8, 8, 2, 1], [2, 2, 2, 2], rngs=nnx.Rngs(0)
    )
    return of_nnx(net, numbers(2, 32, 32, 3))


@VISION("attnax", "ViT")
def _attnax_vit():
    from attnax import VisionTransformer, VisionTransformerConfig
    from flax import nnx

    config = VisionTransformerConfig(
        image_size=8, patch_size=4, num_classes=5, d_model=8, d_ff=12, num_layers=2, num_heads=2
    )
    return of_nnx(VisionTransformer(nnx.Rngs(0), config), numbers(2, 8, 8, 3))


def _keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise ImportError("keras runs on another backend")
    return keras


@VISION("keras", "MobileNet-v2 at .35")
def _keras_mobilenet():
    net = _keras().applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=5)
    return of_keras(net, numbers(2, 32, 32, 3))


@VISION("keras", "DenseNet-121, first blocks")
def _keras_densenet():
    net = _keras().applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=5)
    return of_keras(net, numbers(2, 32, 32, 3))


@VISION("keras", "ResNet-50-v2")
def _keras_resnet():
    net = _keras().applications.ResNet50V2(weights=None, input_shape=(32, 32, 3), classes=5)
    return of_keras(net, numbers(2, 32, 32, 3))


@VISION("keras", "EfficientNet-v2-B0")
def _keras_efficientnet():
    net = _keras().applications.EfficientNetV2B0(
        weights=None, input_shape=(32, 32, 3), classes=5, include_preprocessing=False
    )
    return of_keras(net, numbers(2, 32, 32, 3))


@VISION("keras", "separable convolutions and group norm")
def _keras_separable():
    layers = _keras().layers
    net = _keras().Sequential([
        layers.SeparableConv2D(8, 3, activation="relu"), layers.GroupNormalization(2),
        layers.Conv2DTranspose(6, 3, strides=2), layers.PReLU(), layers.MaxPooling2D(),
        layers.Flatten(), layers.Dense(7, "gelu"), layers.UnitNormalization(), layers.Dense(5),
    ])  # fmt: skip
    return of_keras(net, numbers(2, 12, 12, 3))


@VISION("equinox", "convolutions with spectral and weight norm")
def _normed():
    import equinox as eqx

    class Network(eqx.Module):
        first: eqx.nn.Conv2d
        second: eqx.nn.WeightNorm
        head: eqx.nn.Linear
        norm: eqx.nn.GroupNorm

        def __call__(self, x):
            x = jax.nn.relu(self.norm(self.first(x)))
            return self.head(jax.nn.relu(self.second(x)).mean((1, 2)))

    net = Network(
        eqx.nn.Conv2d(3, 6, 3, key=KEY),
        eqx.nn.WeightNorm(eqx.nn.Conv2d(6, 5, 3, key=KEY)),
        eqx.nn.Linear(5, 2, key=KEY),
        eqx.nn.GroupNorm(3, 6),
    )
    return of_equinox(net, numbers(2, 3, 8, 8))
