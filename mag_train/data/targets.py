"""From masks and labels to the annotation C that the annotator is trained towards."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mag_rt.bundle import CLASS_NAMES
from mag_train.data.photos import UNLABELLED
from mag_train.data.stream import RawPictures
from mag_train.data.synthesis import EDGE_WIDTH


@dataclass
class Pictures:
    """A batch on the training device, all float32.

    image: N x 3 x H x W RGB in [-1, 1]. truth: C, N x (2+K) x H x W of 0 and 1: mask, edge, classes of the whole
    picture, pasted objects included. counted: same shape, 0 where a label is unknown and the channel counts in no term.
    """

    image: Tensor
    truth: Tensor
    counted: Tensor

    @property
    def mask(self) -> Tensor:
        """C_m, N x 1 x H x W."""
        return self.truth[:, :1]

    @property
    def classes(self) -> Tensor:
        """C_s, N x K x H x W."""
        return self.truth[:, 2:]

    @property
    def authentic_truth(self) -> Tensor:
        """C', N x (2+K) x H x W: the classes of the authentic areas only, C_s * (1 - C_m) (paper, section 3.3)."""
        return torch.cat([self.truth[:, :2], self.classes * (1 - self.mask)], dim=1)


def pictures(raw: RawPictures, device: torch.device, mask_only: bool = False) -> Pictures:
    """Move a raw batch to the device and make its truth there; `mask_only`: no other channel counts."""
    image = raw.image.to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    mask = raw.mask.to(device)[:, None].float()
    labels = raw.labels.to(device)[:, None]
    ids = torch.arange(1, len(CLASS_NAMES) + 1, dtype=torch.uint8, device=device)[None, :, None, None]
    truth = torch.cat([mask, mask_edge(mask), (labels == ids).float()], dim=1)
    known = (labels != UNLABELLED).float()
    counted = torch.cat([torch.ones_like(truth[:, :2]), known.expand(-1, len(CLASS_NAMES), -1, -1)], dim=1)
    if mask_only:
        counted[:, 1:] = 0
    return Pictures(image, truth, counted)


def mask_edge(mask: Tensor) -> Tensor:
    """The boundary of a binary mask, N x 1 x H x W: 1 within half of `EDGE_WIDTH` of it, on both sides."""
    size, reach = EDGE_WIDTH + 1, EDGE_WIDTH // 2
    dilated = functional.max_pool2d(mask, size, stride=1, padding=reach)
    eroded = -functional.max_pool2d(-mask, size, stride=1, padding=reach)
    return dilated - eroded
