"""The convolution blocks that the networks share."""

from torch import Tensor, nn
from torch.nn import functional


class ConvBlock(nn.Sequential):
    """Convolution of an odd `side`, batch norm, ReLU: N x `inside` x H x W to N x `outside` x H and W by `stride`.

    Without `padding` the border of side // 2 pixels is lost.
    """

    def __init__(self, inside: int, outside: int, stride: int = 1, side: int = 3, padding: bool = True) -> None:
        super().__init__(
            nn.Conv2d(inside, outside, side, stride, side // 2 if padding else 0, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity (He et al. 2016); shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))
