"""The annotator G_A: a picture in, splice mask, splice edge and K class maps out. Two of them, `paper` and `edge`.

And `thorough`, which is `edge` read four ways.
"""

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mag_rt.bundle import CLASS_NAMES
from mag_train.models.blocks import ConvBlock, ResidualBlock
from mag_train.models.unet_uc import UNetUC

CHANNELS = 2 + len(CLASS_NAMES)
"""Annotation channels: 0 splice mask, 1 splice edge, 2... the classes in the order of `CLASS_NAMES`."""


class Annotator(nn.Module):
    """N x 3 x H x W RGB in [-1, 1] to N x (2+K) x H x W in [0, 1].

    With fewer than 2+K `maps` (1: the mask alone) the channels behind them are 0.
    """

    side_multiple: int
    """Sides of the input are multiples of this many pixels."""

    def __init__(self, maps: int = CHANNELS) -> None:
        super().__init__()
        self.maps = maps

    def _annotation(self, probability: Tensor) -> Tensor:
        """N x `maps` x H x W to the whole annotation."""
        silent = CHANNELS - self.maps
        return functional.pad(probability, (0, 0, 0, 0, 0, silent)) if silent else probability


class PaperAnnotator(Annotator):
    """The authors' annotator: U-Net-UC at 512x512, 48 M parameters, 47 GMAC.

    Sides are multiples of 512.
    """

    def __init__(self, maps: int = CHANNELS) -> None:
        super().__init__(maps)
        self.body = UNetUC(outside=maps)
        self.side_multiple = self.body.side_multiple

    def forward(self, image: Tensor) -> Tensor:
        # (tanh(z) + 1) / 2, written as the equal sigmoid(2z): it keeps precision near 0.
        return self._annotation(torch.sigmoid(2 * self.body(image).float()))


def _no_tf32(image: Tensor) -> AbstractContextManager[None]:
    """Convolutions of float32 in float32: what PyTorch lets a GPU take for it, TF32, has the ten bits of float16."""
    if not image.is_cuda:
        return nullcontext()
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


class NoiseViews(nn.Module):
    """The picture beside its noise residuals, both unshuffled by 2, as one convolution.

    N x 3 x H x W in [-1, 1] to N x 4(3+`filters`) x H/2+2 x W/2+2: channel by channel, the four pixels of each 2x2
    block, and a ring of mirrored ones around for the 3x3 convolution that reads them without a padding of its own.
    No pixel is thrown away before the network has looked at its noise.

    The residuals are learned 5x5 high-pass filters: their weights are kept zero-mean, so they see noise and not
    content. The idea is that of the constrained convolution of Bayar and Stamm (2016), with a zero sum instead of a
    fixed centre.
    """

    GAIN = 1.5
    """Residuals are a few grey levels; this brings them nearer to the range of the picture beside them."""
    REACH = 2
    """Pixels that a filter sees to each side."""

    def __init__(self, filters: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Conv2d(3, filters, 2 * self.REACH + 1).weight.detach())

    def forward(self, image: Tensor) -> Tensor:
        # In float32 whatever the precision of the run: half a grey level, the bfloat16 step near 1, is the signal here.
        with torch.autocast(image.device.type, enabled=False), _no_tf32(image):
            padded = functional.pad(image, (self.REACH + 2,) * 4, mode="reflect")
            channels_last = padded.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
            return functional.conv2d(channels_last, self.strided(), stride=2)

    def strided(self) -> Tensor:
        """The one convolution's weight, 4(3+filters) x 3 x 6 x 6: every filter at the four places of a 2x2 block."""
        high_pass = self.GAIN * (self.weight - self.weight.mean(dim=(2, 3), keepdim=True))
        picture = functional.pad(torch.eye(3, device=high_pass.device)[:, :, None, None], (self.REACH,) * 4)
        filters = torch.cat([picture, high_pass])
        places = [functional.pad(filters, (x, 1 - x, y, 1 - y)) for y in (0, 1) for x in (0, 1)]
        return torch.stack(places, dim=1).flatten(0, 1)

    @classmethod
    def filters(cls, strided: Tensor) -> Tensor:
        """The `weight` that `strided` was made of: what an exported network shows of it."""
        return strided[4 * 3 :: 4, :, :-1, :-1] / cls.GAIN


class EdgeAnnotator(Annotator):
    """The annotator that ships: a small residual U-Net at half resolution, 3.68 M parameters, 8.8 GMAC at 512x512.

    Sides are multiples of 32. What comes up is made as narrow as the skip beside it and added: concatenated, as is
    usual, the decoder would cost three times as much (docs/benchmarks.md).
    """

    side_multiple = 32
    WIDTHS = (32, 64, 128, 192, 256)

    def __init__(self, maps: int = CHANNELS) -> None:
        super().__init__(maps)
        widths = self.WIDTHS
        self.noise = NoiseViews(filters=6)
        self.stem = nn.Sequential(ConvBlock(4 * (3 + 6), widths[0], padding=False), ResidualBlock(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(fine, coarse, stride=2), ResidualBlock(coarse)) for fine, coarse in pairwise(widths)
        )
        self.gate = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 1), nn.Sigmoid())
        rising = list(pairwise(widths[::-1]))
        self.narrow = nn.ModuleList(ConvBlock(coarse, fine, side=1) for coarse, fine in rising)
        self.up = nn.ModuleList(ConvBlock(fine, fine) for _, fine in rising)
        self.head = nn.Conv2d(widths[0], 4 * maps, 1)

    def forward(self, image: Tensor) -> Tensor:
        levels = [self.stem(self.noise(image))]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        x = x * self.gate(x.mean(dim=(2, 3), keepdim=True))  # what the whole picture is like, to every pixel
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x = up(functional.interpolate(narrow(x), scale_factor=2.0) + levels.pop())
        # Probabilities first: a runtime can then move what they become, grey levels of one byte, instead of floats.
        return self._annotation(functional.pixel_shuffle(torch.sigmoid(self.head(x).float()), 2))


class ThoroughAnnotator(EdgeAnnotator):
    """`EdgeAnnotator`, with its weights, that gives the mean of four readings: what it errs in is not all the same.

    One after the other: at once they would take twice the memory. It is exported, never trained.
    """

    FLIPS = ((3,), (2,), (2, 3))
    """Axes that the other readings are flipped along: mirrored, upside down, turned by half."""

    def forward(self, image: Tensor) -> Tensor:
        total = super().forward(image)
        for axes in self.FLIPS:
            total = total + super().forward(image.flip(axes)).flip(axes)
        return total / (1 + len(self.FLIPS))


ANNOTATORS: dict[str, type[Annotator]] = {
    "paper": PaperAnnotator,
    "edge": EdgeAnnotator,
    "thorough": ThoroughAnnotator,
}
