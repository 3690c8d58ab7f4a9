"""U-Net-UC, the authors' generator: a U-Net whose decoder upsamples and convolves instead of deconvolving."""

from itertools import pairwise

import torch
from torch import Tensor, nn


def _down(inside: int, outside: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=not norm)]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(outside)] if norm else []))


def _up(inside: int, outside: int, dropout: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(inside, outside, 3, bias=False),
        nn.BatchNorm2d(outside),
    ]
    return nn.Sequential(*layers, *([nn.Dropout(0.5)] if dropout else []))


class UNetUC(nn.Module):
    """U-Net with upsample + convolution (paper, section 3.4; sizes from the authors' code).

    `levels` 4x4 convolutions of stride 2 go down through width, 2, 4, 8, 8... times `width` channels; nearest x2,
    reflection pad and 3x3 convolution come back up; skip connections join the two; dropout 0.5 on the inner levels of
    full width. Takes N x 3 x H x W in [-1, 1], gives N x `outside` x H x W before the last tanh.

    Raises ValueError when a side is not a multiple of 2**levels (512 for the paper's nine levels).
    """

    def __init__(self, outside: int, levels: int = 9, width: int = 64) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(levels)]
        self.side_multiple = 2**levels
        # Neither the first nor the innermost level is normalised (pix2pix): the innermost may be a single pixel.
        self.down = nn.ModuleList(
            _down(fine, coarse, norm=0 < level < levels - 1)
            for level, (fine, coarse) in enumerate(pairwise([3, *widths]))
        )
        self.up = nn.ModuleList()
        for level in range(levels - 1, 0, -1):
            inside = widths[level] * (1 if level == levels - 1 else 2)
            inner = level < levels - 1 and widths[level] == widths[level - 1] == 8 * width
            self.up.append(_up(inside, widths[level - 1], dropout=inner))
        self.last = nn.Sequential(
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.ReflectionPad2d(1),
            nn.Conv2d(2 * widths[0], outside, 3),
        )
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if height % self.side_multiple or width % self.side_multiple:
            raise ValueError(
                f"U-Net-UC with {len(self.down)} levels takes sides that are multiples of {self.side_multiple}, "
                f"not {width}x{height}"
            )
        skips = [self.down[0](image)]
        for down in self.down[1:]:
            skips.append(down(self.activation(skips[-1])))
        x = skips.pop()
        for up in self.up:
            x = torch.cat([up(x), skips.pop()], dim=1)
        return self.last(x)
