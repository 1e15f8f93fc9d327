"""The residual networks, attacks and training steps of jaxrobust written in PyTorch, to compare.

Written as a careful PyTorch user would: channels_last, autocast, fused SGD, torch.compile, and
attacks that compute no gradient of a parameter.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from jaxrobust import Classifier, torch_weights
from jaxrobust.core.checks import check_that
from jaxrobust.models import resnet


def halve(images: torch.Tensor) -> torch.Tensor:
    """The averages of 2 x 2 pixels; the last row or column of an odd side is repeated."""
    height, width = images.shape[2:]
    if height % 2 or width % 2:
        images = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(images, 2)


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1).

    `pooled`: a stride of 2 is taken by `halve` before both branches.
    """

    def __init__(
        self, inputs: int, width: int, features: int, stride: int, bottleneck: bool, pooled: bool
    ) -> None:
        super().__init__()
        self.halved = pooled and stride == 2
        stride = 1 if self.halved else stride
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
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != features:
            self.downsample.append(nn.Conv2d(inputs, features, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(features))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = halve(images) if self.halved else images
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
        known = model.downsampling in ("stride", "average_pool")
        rule = "be 'stride' or 'average_pool' here"
        check_that(known, "downsampling", rule, repr(model.downsampling))
        for name in ("mean", "std"):
            value = torch.tensor(getattr(model, name)).reshape(1, -1, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self.autocast = np.dtype(model.dtype) != np.float32
        size, stride, padding = (3, 1, 1) if model.small_images else (7, 2, 3)
        stride = model.stem_stride or stride
        channels, pooled = model.width, model.downsampling != "stride"
        self.halved = pooled and stride == 2
        stem = 1 if pooled else stride
        self.conv1 = nn.Conv2d(len(model.mean), channels, size, stem, padding, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.Identity() if model.small_images else nn.MaxPool2d(3, 1 if pooled else 2, 1)
        self.halved_again = pooled and not model.small_images
        self.stages = len(model.stage_sizes)
        for stage, blocks in enumerate(model.stage_sizes):
            width = model.width * 2**stage
            features = 4 * width if model.bottleneck else width * model.widening
            layer = nn.Sequential()
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                inner = width * model.widening
                layer.append(
                    ResidualBlock(channels, inner, features, stride, model.bottleneck, pooled)
                )
                channels = features
            self.add_module(f"layer{stage + 1}", layer)
        self.fc = nn.Linear(channels, model.num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = (images - self.mean) / self.std
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast):
            outputs = F.relu(self.bn1(self.conv1(images)), inplace=True)
            outputs = self.pool(halve(outputs) if self.halved else outputs)
            outputs = halve(outputs) if self.halved_again else outputs
            for stage in range(self.stages):
                outputs = getattr(self, f"layer{stage + 1}")(outputs)
            return self.fc(outputs.mean((2, 3))).float()


def load(network: ResNet, classifier: Classifier) -> None:
    """Copy the weights of a jaxrobust ResNet over."""
    model: Any = classifier.model
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(resnet.ResNet)}
    plain = resnet.ResNet(**fields)  # of a class of one's own
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        torch_weights.save(Classifier(plain, classifier.variables), path)
        network.load_state_dict(safetensors.torch.load_file(path))


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


def works(
    classifier: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attacks: Mapping[str, Mapping[str, Any]],
    optimizer: Mapping[str, Any],
    compile_mode: str,
) -> tuple[dict[str, Callable[[], torch.Tensor]], dict[str, Any]]:
    """Everything that is measured, as functions without arguments, where JAX computes.

    Args:
      classifier: a ResNet of jaxrobust; its weights are copied over.
      images: uint8 (n, height, width, channels).
      labels: integers (n,).
      attacks: {name: {"epsilon", "steps", "step_size", "random_start"}}.
      optimizer: learning_rate, momentum, nesterov and weight_decay.
      compile_mode: of torch.compile, "none", or "auto": "default" on a GPU, else "none".

    Returns:
      {name: function}, and what to say of PyTorch: its version and threads, and of the GPU.

    Raises:
      RuntimeError: when PyTorch cannot compute there.
    """
    backend = jax.default_backend()
    if backend != "cpu" and not (backend == "gpu" and torch.cuda.is_available()):
        raise RuntimeError(f"PyTorch cannot use the {backend} that JAX computes on")
    device = "cpu" if backend == "cpu" else "cuda"
    if compile_mode == "auto":
        compile_mode = "none" if device == "cpu" else "default"
    about = {
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "torch_compile": compile_mode,
    }
    if device == "cuda":
        about |= {"torch_cuda": torch.version.cuda, "torch_device": torch.cuda.get_device_name()}
    torch.backends.cudnn.benchmark = True
    # Float32 products are rounded as JAX's are on such GPUs.
    rounded = jax.config.jax_default_matmul_precision != "highest"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = rounded

    def compiled(function: Callable) -> Callable:
        return function if compile_mode == "none" else torch.compile(function, mode=compile_mode)

    initial = ResNet(classifier.model)
    load(initial, classifier)
    initial.to(device, memory_format=torch.channels_last)
    evaluated, ascended = compiled(sharing(initial)), compiled(_ascended)
    pictures = torch.from_numpy(images).to(device)
    classes = torch.from_numpy(labels).long().to(device)

    def batch() -> torch.Tensor:
        # (n, c, h, w); the memory of (n, h, w, c) is that of channels_last.
        return pictures.permute(0, 3, 1, 2).float() / 255.0

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return evaluated(batch())

    def gradient() -> torch.Tensor:
        return input_gradient(evaluated, batch(), classes).permute(0, 2, 3, 1)

    def attacked(network, images, *, epsilon, steps, step_size, random_start) -> torch.Tensor:
        delta = torch.zeros_like(images)
        if random_start:
            delta = (images + delta.uniform_(-epsilon, epsilon)).clamp(0.0, 1.0) - images
        for _ in range(steps):
            slope = input_gradient(network, (images + delta).clamp(0.0, 1.0), classes)
            delta = ascended(images, delta, slope, epsilon, step_size)
        return (images + delta).clamp(0.0, 1.0)

    def attack(options: Mapping[str, Any]) -> Callable[[], torch.Tensor]:
        return lambda: attacked(evaluated, batch(), **options).permute(0, 2, 3, 1)

    def training(options: Mapping[str, Any] | None) -> Callable[[], torch.Tensor]:
        """One step on weights of its own; it returns the loss."""
        network = copy.deepcopy(initial).train()
        target = None if options is None else compiled(sharing(network))
        rest = {name: value for name, value in optimizer.items() if name != "learning_rate"}
        sgd = torch.optim.SGD(
            network.parameters(), lr=optimizer["learning_rate"], fused=True, **rest
        )
        trained = compiled(network)

        def step() -> torch.Tensor:
            images = batch()
            if options is not None:
                images = attacked(target, images, **options)
            logits = trained(images)
            loss = F.cross_entropy(logits, classes)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
            (logits.detach().argmax(1) == classes).float().mean()  # as jaxrobust's step
            return loss.detach()

        return step

    recipes: Mapping[str, Mapping[str, Any] | None] = {"standard": None, **attacks}
    made = {
        "forward": forward,
        "input gradient": gradient,
        **{f"{name} attack": attack(options) for name, options in attacks.items()},
        **{f"{name} training step": training(options) for name, options in recipes.items()},
    }
    return made, about


def wait(result: torch.Tensor) -> None:
    """Return when everything is computed."""
    if result.is_cuda:
        torch.cuda.synchronize()
