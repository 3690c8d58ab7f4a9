"""The retoucher G_R: takes a spliced picture and hides the traces of the splice."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mag_train.models.compositing import attention_blend
from mag_train.models.unet_uc import UNetUC


@dataclass
class Retouched:
    """B^ and what it was made of: image and rgb N x 3 x H x W in [-1, 1], attention N x 1 x H x W in [0, 1]."""

    image: Tensor
    rgb: Tensor
    attention: Tensor


class Retoucher(nn.Module):
    """U-Net-UC with four outputs, RGB and attention, composited by eq. 1; nine levels from 64 channels in the paper."""

    def __init__(self, levels: int = 9, width: int = 64) -> None:
        super().__init__()
        self.body = UNetUC(outside=4, levels=levels, width=width)
        self.side_multiple = self.body.side_multiple

    def forward(self, spliced: Tensor) -> Retouched:
        """N x 3 x H x W in [-1, 1], sides multiples of `side_multiple`."""
        output = torch.tanh(self.body(spliced).float())
        rgb, attention = output[:, :3], (output[:, 3:] + 1) / 2
        return Retouched(attention_blend(rgb, attention, spliced), rgb, attention)


class RetoucherOutputs(nn.Module):
    """What a retoucher paints and where, before eq. 1: N x 3 x H x W to N x 4 x H x W, RGB in [-1, 1] and attention."""

    def __init__(self, retoucher: Retoucher) -> None:
        super().__init__()
        self.retoucher = retoucher
        self.side_multiple = retoucher.side_multiple

    def forward(self, spliced: Tensor) -> Tensor:
        retouched = self.retoucher(spliced)
        return torch.cat([retouched.rgb, retouched.attention], dim=1)
