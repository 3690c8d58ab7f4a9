"""PatchGAN, the discriminator of pix2pix: D_R looks at a picture, D_A at a picture together with its annotation."""

from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """N x `inside` x H x W to N x 1 x H/8 - 2 x W/8 - 2 logits, each about a 70x70 patch being real.

    Three 4x4 convolutions of stride 2 from `width` channels, then two of stride 1 (Isola et al. 2017).
    """

    def __init__(self, inside: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(inside, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for fine, coarse, stride in ((width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)):
            layers += [
                nn.Conv2d(fine, coarse, 4, stride=stride, padding=1, bias=False),
                # Of its batch alone: a discriminator is never asked outside of training.
                nn.BatchNorm2d(coarse, track_running_stats=False),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).float()
