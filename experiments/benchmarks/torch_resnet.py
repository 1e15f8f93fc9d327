"""The residual networks, attacks and training steps of jaxrobust written in PyTorch, to compare.

Written as a careful PyTorch user would: channels_last, autocast, fused SGD, torch.compile, and
attacks that compute no gradient of a parameter.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from jaxrobust.models import resnet

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Downsample(nn.Module):
    """The projection of a shortcut."""

    def __init__(self, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(images))


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1)."""

    def __init__(
        self, inputs: int, width: int, features: int, stride: int, bottleneck: bool
    ) -> None:
        super().__init__()
        if bottleneck:
            convolutions = [(width, 1, 1), (width, 3, stride), (features, 1, 1)]
        else:
            convolutions = [(width, 3, stride), (features, 3, 1)]
        self.count, channels = len(convolutions), inputs
        for index, (outputs, size, step) in enumerate(convolutions, start=1):
            conv = nn.Conv2d(channels, outputs, size, step, size // 2, bias=False)
            self.add_module(f"conv{index}", conv)
            self.add_module(f"bn{index}", nn.BatchNorm2d(outputs))
            channels = outputs
        projected = stride != 1 or inputs != features
        self.downsample = Downsample(inputs, features, stride) if projected else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs = images
        for index in range(1, self.count + 1):
            outputs = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(outputs))
            if index < self.count:
                outputs = F.relu(outputs, inplace=True)
        return F.relu(outputs + self.downsample(images), inplace=True)


class ResNet(nn.Module):
    """The network that a jaxrobust ResNet describes, for (n, c, h, w) images in [0, 1].

    Args:
        model: whose fields are read; its dtype bfloat16 means autocast.
    """

    def __init__(self, model: resnet.ResNet) -> None:
        super().__init__()
        for name in ("mean", "std"):
            value = torch.tensor(getattr(model, name)).reshape(1, -1, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.autocast = np.dtype(model.dtype) != np.float32
        size, stride, padding = (3, 1, 1) if model.small_images else (7, 2, 3)
        stride = model.stem_stride or stride
        channels = model.width
        self.conv1 = nn.Conv2d(len(model.mean), channels, size, stride, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.Identity() if model.small_images else nn.MaxPool2d(3, 2, 1)
        self.blocks = []
        for stage, blocks in enumerate(model.stage_sizes):
            width = model.width * 2**stage
            features = 4 * width if model.bottleneck else width * model.widening
            for block in range(blocks):
                step = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(f"layer{stage + 1}_{block}")
                made = ResidualBlock(
                    channels, width * model.widening, features, step, model.bottleneck
                )
                self.add_module(self.blocks[-1], made)
                channels = features
        self.fc = nn.Linear(channels, model.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = (images - self.mean) / self.std
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            outputs = self.pool(F.relu(self.bn1(self.conv1(images)), inplace=True))
            for name in self.blocks:
                outputs = getattr(self, name)(outputs)
            return self.fc(outputs.mean((2, 3))).float()


def load(network: ResNet, variables: Mapping[str, Any]) -> None:
    """Copy the weights of a jaxrobust ResNet over.

    Raises:
        ValueError: when a weight is missing or left over.
    """
    state = {}

    def collect(tree: Mapping[str, Any], path: str) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                collect(value, f"{path}{name}.")
                continue
            value = np.array(value, np.float32)
            if name == "kernel":
                value = value.transpose((3, 2, 0, 1) if value.ndim == 4 else (1, 0))
            state[path + _LEAVES[name]] = torch.from_numpy(np.ascontiguousarray(value))

    for collection in ("params", "batch_stats"):
        collect(variables[collection], "")
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"weights do not fit: {missing} are missing, {unexpected} are left over.")


def sharing(network: ResNet) -> ResNet:
    """The same weights and running statistics (not copies) for attacks: in evaluation mode.

    A compiled network computes all gradients that its parameters ask for, needed or not; these
    parameters ask for none.
    """
    twin = copy.deepcopy(network).requires_grad_(False).eval()
    twin.load_state_dict(network.state_dict(), assign=True)
    return twin


def input_gradient(network: Callable, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Gradient of each image's cross-entropy with respect to it."""
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def _ascended(images, delta, gradient, epsilon: float, step_size: float) -> torch.Tensor:
    lower, upper = (-images).clamp(min=-epsilon), (1.0 - images).clamp(max=epsilon)
    return torch.clamp(delta + step_size * gradient.sign(), lower, upper)


class Works:
    """Everything that is measured, as functions without arguments.

    Args:
        model: of jaxrobust.
        variables: its weights, copied over.
        images: uint8 (n, height, width, channels).
        labels: integers (n,).
        device: of PyTorch.
        compile_mode: of torch.compile, or "none".
        optimizer: learning_rate, momentum, nesterov and weight_decay.
    """

    def __init__(
        self,
        model: resnet.ResNet,
        variables: Mapping[str, Any],
        images: np.ndarray,
        labels: np.ndarray,
        *,
        device: str,
        compile_mode: str,
        optimizer: Mapping[str, Any],
    ) -> None:
        torch.backends.cudnn.benchmark = True
        self.device, self.compile_mode = device, compile_mode
        self.network = ResNet(model)
        load(self.network, variables)
        self.network.to(device, memory_format=torch.channels_last)
        self.pictures = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).long().to(device)
        self.ascended = self._compiled(_ascended)
        self.evaluated = self._compiled(sharing(self.network))
        self.optimizer = dict(optimizer, lr=optimizer["learning_rate"], fused=True)
        del self.optimizer["learning_rate"]

    def _compiled(self, function: Callable) -> Callable:
        if self.compile_mode == "none":
            return function
        return torch.compile(function, mode=self.compile_mode)

    def images(self) -> torch.Tensor:
        """(n, c, h, w) in [0, 1]; the memory of (n, h, w, c) is that of channels_last."""
        return self.pictures.permute(0, 3, 1, 2).float() / 255.0

    def forward(self) -> torch.Tensor:
        """Logits (n, classes) in evaluation mode."""
        with torch.inference_mode():
            return self.evaluated(self.images())

    def input_gradient(self) -> torch.Tensor:
        """(n, h, w, c)."""
        return input_gradient(self.evaluated, self.images(), self.labels).permute(0, 2, 3, 1)

    def attack(self, **options: Any) -> torch.Tensor:
        """Adversarial images (n, h, w, c)."""
        return self._attacked(self.evaluated, self.images(), **options).permute(0, 2, 3, 1)

    def _attacked(
        self,
        network: Callable,
        images: torch.Tensor,
        *,
        epsilon: float,
        steps: int,
        step_size: float,
        random_start: bool,
    ) -> torch.Tensor:
        delta = torch.zeros_like(images)
        if random_start:
            delta = (images + delta.uniform_(-epsilon, epsilon)).clamp(0.0, 1.0) - images
        for _ in range(steps):
            gradient = input_gradient(network, (images + delta).clamp(0.0, 1.0), self.labels)
            delta = self.ascended(images, delta, gradient, epsilon, step_size)
        return (images + delta).clamp(0.0, 1.0)

    def training(self, attack: Mapping[str, Any] | None) -> Callable[[], torch.Tensor]:
        """One training step on weights of its own; it returns the loss."""
        network = copy.deepcopy(self.network).train()
        attacked = None if attack is None else self._compiled(sharing(network))
        optimizer = torch.optim.SGD(network.parameters(), **self.optimizer)
        trained = self._compiled(network)

        def step() -> torch.Tensor:
            images = self.images()
            if attack is not None:
                images = self._attacked(attacked, images, **attack)
            logits = trained(images)
            loss = F.cross_entropy(logits, self.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            (logits.detach().argmax(1) == self.labels).float().mean()  # as jaxrobust's step
            return loss.detach()

        return step

    def wait(self, result: torch.Tensor) -> None:
        """Return when everything is computed."""
        del result
        if self.device == "cuda":
            torch.cuda.synchronize()


def available(backend: str) -> bool:
    """Whether PyTorch can compute where JAX does (its backend "cpu" or "gpu")."""
    return backend == "cpu" or (backend == "gpu" and torch.cuda.is_available())


def describe(device: str) -> dict[str, Any]:
    """Version and threads, or the GPU's name."""
    about = {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    if device == "cuda":
        about |= {"torch_cuda": torch.version.cuda, "torch_device": torch.cuda.get_device_name()}
    return about


def use_tensor_float_32(allowed: bool) -> None:
    """Whether float32 products may be rounded as JAX's default on such GPUs does."""
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
