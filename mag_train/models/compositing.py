"""Eq. 1: how the retoucher's two outputs and the spliced picture become the retouched one."""

from torch import Tensor


def attention_blend(rgb: Tensor, attention: Tensor, image: Tensor) -> Tensor:
    """Eq. 1, B^ = B_alpha * B_rgb + (1 - B_alpha) * A.

    rgb and image N x 3 x H x W, attention N x 1 x H x W in [0, 1] (the channel axis stays: dropped, it would broadcast
    over the batch). Gives N x 3 x H x W.
    """
    return attention * rgb + (1 - attention) * image
