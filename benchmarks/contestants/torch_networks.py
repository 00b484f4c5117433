# SPDX-License-Identifier: Apache-2.0
"""The nets of `networks` in torch, a CIFAR ResNet-20, and the kernel by torch.func."""

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap


def from_arrays(data):
    """The ReLU net of `benchmarks.problems` with its weights; images are read channels last."""
    layers, depth = [], len(data) // 2
    for k in range(depth):
        weight, bias = (torch.from_numpy(data[f"{letter}{k}"]) for letter in "wb")
        if weight.ndim == 4:
            layer = nn.Conv2d(*weight.shape[2:], weight.shape[0], padding="same")
            after = [nn.ReLU(), nn.AvgPool2d(2)]
            weight = weight.permute(3, 2, 0, 1)
        else:
            if layers and isinstance(layers[-1], nn.AvgPool2d):
                layers.append(Mean())
            layer, after = nn.Linear(*weight.shape), [nn.ReLU()]
            weight = weight.T
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        layers += [layer] if k == depth - 1 else [layer, *after]
    return nn.Sequential(*layers)


class Mean(nn.Module):
    """Over the positions of an image."""

    def forward(self, x):
        """One number per channel."""
        return x.mean((2, 3))


def convolution(inputs, outputs, size, stride):
    """Without a bias, followed by BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where shapes differ [He 2016, option B]."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x):
        """Relu of the sum of both paths."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class ResNet20(nn.Module):
    """Three stages of three blocks, mean, linear output."""

    def __init__(self):
        super().__init__()
        blocks, inputs = [], 16
        for stage, outputs in enumerate((16, 32, 64)):
            for block in range(3):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(inputs, outputs, stride))
                inputs = outputs
        self.stem, self.blocks = convolution(3, 16, 3, 1), nn.Sequential(*blocks)
        self.output = nn.Linear(64, 10)

    def forward(self, x):
        """Logits of images."""
        return self.output(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


class Transformer(nn.Module):
    """The transformer of `networks`, layer after layer, with weights of its own."""

    def __init__(self, layers=4, width=64, tokens=32):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(128, width), nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.output = nn.Linear(width, 10, bias=False)

    def forward(self, tokens):
        """Outputs at the last token."""
        x = self.embedding(tokens) + self.positions.weight
        for layer in self.layers:
            x = layer(x)
        return self.output(self.norm(x[:, -1]))


class Layer(nn.Module):
    """Causal attention and an MLP, each normalised before and added."""

    def __init__(self, width):
        super().__init__()
        self.norm_0, self.norm_1 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.heads, self.mix = (nn.Linear(width, k * width, bias=False) for k in (3, 1))
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        """The same shape."""
        n, t, d = x.shape
        parts = self.heads(self.norm_0(x)).reshape(n, t, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts
        scores = queries @ keys.transpose(-1, -2) / (d // 4) ** 0.5
        causal = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        attention = torch.softmax(scores.masked_fill(~causal, -1e9), -1)
        x = x + self.mix((attention @ values).transpose(1, 2).reshape(n, t, d))
        return x + self.down(nn.functional.gelu(self.up(self.norm_1(x)), approximate="tanh"))


def images_first(x):
    """Images with their channels first, as torch has them; other inputs as they are."""
    x = torch.from_numpy(x)
    return x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x


def jacobian_kernel(module, x):
    """The kernel [n, c, n, c] by vmap(jacrev) of torch.func and one product."""
    params = {name: p.detach() for name, p in module.named_parameters()}
    buffers = dict(module.named_buffers())

    def single(p, example):
        return functional_call(module, (p, buffers), (example[None],))[0]

    jacobians = vmap(jacrev(single), (None, 0))(params, x)
    rows = torch.cat([j.flatten(2) for j in jacobians.values()], -1)
    return torch.einsum("brp,dsp->brds", rows, rows)


def kernel_call(data, x):
    """A call that computes the kernel of a net of arrays, on the GPU where torch sees one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    module, x = from_arrays(data).to(device), images_first(x).to(device)

    def call():
        kernel = jacobian_kernel(module, x)
        if device == "cuda":
            torch.cuda.synchronize()
        return kernel

    return call
