"""The four networks of MAG."""

from torch import nn

from mag_train.config import ModelConfig
from mag_train.models.annotator import ANNOTATORS, CHANNELS, Annotator
from mag_train.models.discriminator import PatchDiscriminator
from mag_train.models.retoucher import Retoucher


class Mag(nn.Module):
    """The annotator G_A, the retoucher G_R and their discriminators D_A and D_R, side by side.

    In the ablation "No G_R" there is neither a retoucher nor the D_R that would judge its work.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.annotator = annotator(config)
        if config.retoucher != "none":
            self.retoucher = Retoucher(config.retoucher_levels, config.retoucher_width)
            self.d_r = PatchDiscriminator(3, config.discriminator_width)
        self.d_a = PatchDiscriminator(3 + CHANNELS, config.discriminator_width)
        for name, network in self.named_children():
            if name != "annotator" or config.annotator == "paper":
                network.apply(_normal_weights)


def annotator(config: ModelConfig, name: str | None = None) -> Annotator:
    """The annotator of a configuration, untrained; or the one called `name`, for the same tasks."""
    return ANNOTATORS[name or config.annotator](1 if config.tasks == "mask" else CHANNELS)


def _normal_weights(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for batch norm scales, as in the authors' code (and pix2pix)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
