"""The four networks of MAG."""

from torch import nn

from mag_train.config import ModelConfig
from mag_train.models.annotator import ANNOTATORS, CHANNELS
from mag_train.models.discriminator import PatchDiscriminator
from mag_train.models.retoucher import Retoucher


class Mag(nn.Module):
    """The annotator G_A, the retoucher G_R and their discriminators D_A and D_R, side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.annotator = ANNOTATORS[config.annotator]()
        self.retoucher = Retoucher(config.retoucher_levels, config.retoucher_width)
        self.d_a = PatchDiscriminator(3 + CHANNELS, config.discriminator_width)
        self.d_r = PatchDiscriminator(3, config.discriminator_width)
        for network in (self.retoucher, self.d_a, self.d_r):
            network.apply(_normal_weights)
        if config.annotator == "paper":
            self.annotator.apply(_normal_weights)


def _normal_weights(module: nn.Module) -> None:
    """N(0, 0.02) for convolutions, N(1, 0.02) for batch norm scales, as in the authors' code (and pix2pix)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
