"""Small networks of older papers, registered with timm: ``timm.create_model(name)`` builds them.

``lenet5`` and ``lenet5_224`` (LeCun et al. 1998, as Keras tutorials write it), ``alexnet`` (Krizhevsky
2014) and ``squeezenet1_1`` (Iandola et al. 2016) with torchvision's layers and key names, so that its
weights load; ``squeezenet1_1_bn``, the same with batch norm, and ``leukemia_cnn`` and ``leukemia_cnn_96``,
networks for grey images of blood smears. None of them has weights of its own to fetch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models import AlexNet, SqueezeNet  # type: ignore[import-untyped]
from torchvision.models.squeezenet import Fire  # type: ignore[import-untyped]

__all__ = ["Classic"]  # the decorator adds the registered networks
GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as PIL and OpenCV do


class Classic(nn.Module):
    """Convolutions, then dense layers of which the last one is the classifier; timm's interface to it.

    Args:
        features: the convolutions, in order.
        stages: the last layer of every stage (its number among ``features``), its channels and how many
            pixels of the image a pixel of it spans.
        pool: from maps to what the dense layers take; it has no parameters.
        classifier: what follows, to class scores.
        at: the classifying layer's number in ``classifier``.
        hidden: numbers an image without the classifying layer.
        in_chans: 1 for a network of grey images; it takes RGB too, and looks at its grey value.
    """

    def __init__(
        self,
        features: nn.Sequential,
        stages: tuple[tuple[int, int, int], ...],
        pool: nn.Module,
        classifier: nn.Sequential,
        at: int,
        hidden: int,
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        self.features = features
        self.pool = pool
        self.classifier = classifier
        self.at = at
        self.num_features = self.head_hidden_size = hidden
        self.in_chans = in_chans
        self.num_classes = _width(classifier[at])
        self.ends = [end for end, _, _ in stages]
        self.feature_info = [
            {"num_chs": channels, "reduction": span, "module": f"features.{end}"}
            for end, channels, span in stages
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(T, C, H, W)`` -> maps ``(T, D, h, w)``."""
        maps: Tensor = self.features(self._seen(x))
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps -> class scores ``(T, K)``, or what the classifying layer sees ``(T, D)``."""
        x = self.pool(x)
        for number, layer in enumerate(self.classifier):
            if not (pre_logits and number == self.at):
                x = layer(x)
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(T, C, H, W)`` -> class scores ``(T, K)``, or ``(T, D)`` without classes."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, intermediates_only: bool = False
    ) -> tuple[Tensor, list[Tensor]] | list[Tensor]:
        """The last maps, and those of the chosen stages (all of them by default), of one pass."""
        if isinstance(indices, int):
            indices = list(range(len(self.ends)))[-indices:]
        wanted = self.ends if indices is None else [self.ends[index] for index in indices]
        x, found = self._seen(x), []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in wanted:
                found.append(x)
        return found if intermediates_only else (x, found)

    def get_classifier(self) -> nn.Module:
        """The classifying layer."""
        layer: nn.Module = self.classifier[self.at]
        return layer

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another number of classes; 0: none, and features ``(T, D)`` come out."""
        make = _conv if isinstance(self.pool, nn.Identity) else _linear
        self.classifier[self.at] = make(self.num_features, num_classes)
        self.num_classes = num_classes

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, int]]:
        """timm's way to ask how deep a parameter lies."""
        return _place

    def _seen(self, x: Tensor) -> Tensor:
        if self.in_chans == 1 and x.shape[1] == 3:
            weights = torch.tensor(GREY, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
            return (x * weights).sum(dim=1, keepdim=True)
        return x


def _width(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", 0) or getattr(layer, "out_channels", 0))


def _place(parameter: str) -> tuple[int, int]:
    """Features come before the dense layers; both are numbered in order."""
    part, number, *_ = parameter.split(".")
    return int(part == "classifier"), int(number)


def _keras_start(network: nn.Module) -> None:
    """Keras' default start: Glorot uniform weights, biases of zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _linear(hidden: int, num_classes: int) -> nn.Module:
    return nn.Linear(hidden, num_classes) if num_classes else nn.Identity()


def _conv(hidden: int, num_classes: int) -> nn.Module:
    return nn.Conv2d(hidden, num_classes, kernel_size=1) if num_classes else nn.Identity()


def _side(img_size: int | tuple[int, int]) -> int:
    return img_size if isinstance(img_size, int) else img_size[0]


def _lenet5(
    num_classes: int = 8,
    in_chans: int = 3,
    drop_rate: float = 0.5,
    img_size: int | tuple[int, int] = 32,  # as timm gives it to networks of a fixed size
) -> Classic:
    """LeNet-5 with ReLU, max pooling and dropout before the last layer."""
    side = ((_side(img_size) - 4) // 2 - 4) // 2
    features = nn.Sequential(
        *(nn.Conv2d(in_chans, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
    )
    dense = (nn.Linear(16 * side * side, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
    classifier = nn.Sequential(*dense, nn.Dropout(drop_rate), _linear(84, num_classes))
    network = Classic(features, ((2, 6, 2), (5, 16, 4)), nn.Flatten(), classifier, 5, 84, in_chans)
    _keras_start(network)
    return network


def _leukemia_cnn(
    num_classes: int = 4,
    in_chans: int = 1,
    drop_rate: float = 0.5,
    img_size: int | tuple[int, int] = 224,
) -> Classic:
    """Five convolutions and one dense layer, for grey images."""
    layers: list[nn.Module] = []
    widths = (32, 64, 64, 128, 128)
    side = _side(img_size)
    for _ in widths:
        side = (side - 2) // 2
    for before, after in zip((in_chans, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
    stages = tuple((3 * n + 2, width, 2 ** (n + 1)) for n, width in enumerate(widths))
    dense = (nn.Linear(128 * side * side, 128), nn.ReLU(), nn.Dropout(drop_rate), _linear(128, num_classes))
    network = Classic(nn.Sequential(*layers), stages, nn.Flatten(), nn.Sequential(*dense), 3, 128, in_chans)
    _keras_start(network)
    return network


def _alexnet(num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5) -> Classic:
    """torchvision's, whose pooling to 6 x 6 takes any size from 63 pixels up."""
    theirs = AlexNet(num_classes=1, dropout=drop_rate)
    if in_chans != 3:
        theirs.features[0] = nn.Conv2d(in_chans, 64, kernel_size=11, stride=4, padding=2)
    theirs.classifier[6] = _linear(4096, num_classes)
    pool = nn.Sequential(theirs.avgpool, nn.Flatten())
    stages = ((2, 64, 8), (5, 192, 16), (12, 256, 32))
    return Classic(theirs.features, stages, pool, theirs.classifier, 6, 4096, in_chans)


def _squeezenet(
    num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, norm: bool = False
) -> Classic:
    """torchvision's version 1.1; ``norm`` adds batch norm after every convolution of the features."""
    features = SqueezeNet("1_1", num_classes=1).features
    if in_chans != 3:
        features[0] = nn.Conv2d(in_chans, 64, kernel_size=3, stride=2)
    if norm:
        features[0] = nn.Sequential(features[0], nn.BatchNorm2d(64))
        for layer in features:
            if isinstance(layer, Fire):
                _normalise(layer)
    last = _conv(512, num_classes)
    classifier = nn.Sequential(nn.Dropout(drop_rate), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    if isinstance(last, nn.Conv2d):  # as torchvision starts it
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    stages = ((1, 64, 2), (4, 128, 4), (7, 256, 8), (12, 512, 16))
    return Classic(features, stages, nn.Identity(), classifier, 1, 512, in_chans)


def _normalise(fire: Fire) -> None:
    """Batch norm between each convolution of a fire module and its activation."""
    for name in ("squeeze", "expand1x1", "expand3x3"):
        conv = getattr(fire, name)
        setattr(fire, name, nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels)))


def _record(size: int, channels: int, at: int, first: str = "features.0", **more: Any) -> dict[str, Any]:
    record = {"input_size": (channels, size, size), "crop_pct": 1.0, "interpolation": "bilinear"}
    return record | {"first_conv": first, "classifier": f"classifier.{at}"} | more


# Keras' rescaling by 1 / 255 and nothing else.
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "fixed_input_size": True}
default_cfgs = generate_default_cfgs(
    {
        "lenet5": _record(32, 3, 5, **PLAIN),
        "lenet5_224": _record(224, 3, 5, **PLAIN),
        "leukemia_cnn": _record(224, 1, 3, **PLAIN),
        "leukemia_cnn_96": _record(96, 1, 3, **PLAIN),
        "alexnet": _record(224, 3, 6),
        "squeezenet1_1": _record(224, 3, 1),
        "squeezenet1_1_bn": _record(224, 3, 1, first="features.0.0"),
    }
)


@register_model
def lenet5(pretrained: bool = False, **kwargs: Any) -> Classic:
    """LeNet-5 for images of 32 x 32 pixels; 61,836 parameters with 8 classes."""
    return _made(_lenet5, "lenet5", pretrained, kwargs)


@register_model
def lenet5_224(pretrained: bool = False, **kwargs: Any) -> Classic:
    """LeNet-5 for images of 224 x 224 pixels; 5,407,116 parameters with 8 classes."""
    return _made(_lenet5, "lenet5_224", pretrained, kwargs)


@register_model
def leukemia_cnn(pretrained: bool = False, **kwargs: Any) -> Classic:
    """A network for grey blood smears of 224 x 224 pixels; 687,428 parameters with 4 classes."""
    return _made(_leukemia_cnn, "leukemia_cnn", pretrained, kwargs)


@register_model
def leukemia_cnn_96(pretrained: bool = False, **kwargs: Any) -> Classic:
    """The same for images of 96 x 96 pixels; 294,212 parameters with 4 classes."""
    return _made(_leukemia_cnn, "leukemia_cnn_96", pretrained, kwargs)


@register_model
def alexnet(pretrained: bool = False, **kwargs: Any) -> Classic:
    """AlexNet; 61,100,840 parameters with 1,000 classes."""
    return _made(_alexnet, "alexnet", pretrained, kwargs)


@register_model
def squeezenet1_1(pretrained: bool = False, **kwargs: Any) -> Classic:
    """SqueezeNet 1.1; 1,235,496 parameters with 1,000 classes."""
    return _made(_squeezenet, "squeezenet1_1", pretrained, kwargs)


@register_model
def squeezenet1_1_bn(pretrained: bool = False, **kwargs: Any) -> Classic:
    """SqueezeNet 1.1 with batch norm; 729,410 parameters with 2 classes."""
    return _made(_squeezenet, "squeezenet1_1_bn", pretrained, {"norm": True} | kwargs)


def _made(build: Callable[..., Classic], name: str, pretrained: bool, kwargs: dict[str, Any]) -> Classic:
    network: Classic = build_model_with_cfg(build, name, pretrained, **kwargs)
    return network
