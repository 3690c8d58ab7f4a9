"""The networks: sizes, shapes, ranges, eq. 1."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mag_train.config import ModelConfig
from mag_train.models import Mag
from mag_train.models.annotator import EdgeAnnotator, NoiseViews, PaperAnnotator, ThoroughAnnotator
from mag_train.models.compositing import attention_blend
from mag_train.models.discriminator import PatchDiscriminator
from mag_train.models.retoucher import Retoucher
from mag_train.models.unet_uc import UNetUC


def parameters(network: nn.Module) -> float:
    return sum(each.numel() for each in network.parameters()) / 1e6


def multiply_adds(network: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(image)
    return counter.get_total_flops() / 2e9


def test_the_paper_annotator_is_the_papers() -> None:
    with torch.device("meta"):
        network = PaperAnnotator()
        assert parameters(network) == pytest.approx(48.07, abs=0.05)
        assert multiply_adds(network, torch.empty(1, 3, 512, 512)) == pytest.approx(47, abs=1)
        assert network(torch.empty(1, 3, 512, 1024)).shape == (1, 12, 512, 1024)


def test_the_paper_annotators_maps_are_its_tanh_brought_to_0_and_1() -> None:
    with torch.device("meta"):
        network = PaperAnnotator()
    network.body = nn.Conv2d(3, 12, 1)  # type: ignore[assignment]
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(network(image), (torch.tanh(network.body(image)) + 1) / 2)


def test_the_paper_annotator_refuses_other_sides_by_name() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"multiples of 512, not 640x512"):
        PaperAnnotator()(torch.empty(1, 3, 512, 640))


def test_the_edge_annotator_has_the_size_that_the_model_card_gives() -> None:
    network = EdgeAnnotator()
    assert parameters(network) == pytest.approx(3.68, abs=0.005)
    assert 4 * multiply_adds(network, torch.zeros(1, 3, 256, 256)) == pytest.approx(8.8, abs=0.05)  # at 512x512


def test_the_edge_annotator_takes_any_multiple_of_32_and_gives_probabilities() -> None:
    network = EdgeAnnotator().eval()
    with torch.no_grad():
        maps = network(torch.rand(2, 3, 32, 96) * 2 - 1)
    assert maps.shape == (2, 12, 32, 96) and maps.min() >= 0 and maps.max() <= 1


def test_the_thorough_annotator_finds_the_same_in_a_flipped_picture() -> None:
    """And with the weights of `edge` gives the mean of what that says of the picture and of each of its flips."""
    edge, thorough = EdgeAnnotator().eval(), ThoroughAnnotator().eval()
    thorough.load_state_dict(edge.state_dict())
    image = torch.rand(2, 3, 32, 64) * 2 - 1
    ways: list[list[int]] = [[], [2], [3], [2, 3]]
    with torch.no_grad():
        maps = thorough(image)
        for way in ways:
            torch.testing.assert_close(thorough(image.flip(way)), maps.flip(way))
        each = torch.stack([edge(image.flip(way)).flip(way) for way in ways])
    torch.testing.assert_close(maps, each.mean(dim=0))
    assert (each[0] - maps).abs().max() > 1e-3  # or the rest would say nothing


def test_noise_views_are_the_picture_and_its_residuals_unshuffled() -> None:
    noise, image = NoiseViews(), torch.rand(2, 3, 16, 24) * 2 - 1
    high_pass = noise.weight - noise.weight.mean(dim=(2, 3), keepdim=True)
    padded = functional.pad(image, (4, 4, 4, 4), mode="reflect")
    residuals = noise.GAIN * functional.conv2d(padded, high_pass)
    expected = functional.pixel_unshuffle(torch.cat([padded[..., 2:-2, 2:-2], residuals], 1), 2)
    torch.testing.assert_close(noise(image), expected)  # and a ring around, two mirrored pixels wide


@pytest.mark.gpu
def test_noise_views_are_the_same_on_a_gpu() -> None:
    """Where PyTorch takes ten bits for float32 unless it is told not to."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU here")
    noise, image = NoiseViews(), torch.rand(2, 3, 64, 96) * 2 - 1
    expected = noise(image)
    with torch.autocast("cuda", torch.bfloat16):
        found = noise.cuda()(image.cuda())
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_noise_residuals_do_not_see_flat_areas_or_brightness() -> None:
    noise = NoiseViews()
    image = torch.rand(1, 3, 16, 16) * 0.5
    torch.testing.assert_close(noise(image + 0.25)[:, 12:], noise(image)[:, 12:], atol=1e-5, rtol=0)
    assert noise(torch.full((1, 3, 16, 16), 0.7))[:, 12:].abs().max() < 1e-5


def test_noise_residuals_keep_float32_under_autocast() -> None:
    noise, image = NoiseViews(), torch.rand(1, 3, 16, 16)
    expected = noise(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(noise(image), expected)


def test_eq1_blends_each_picture_of_a_batch_with_its_own_attention() -> None:
    rgb, image = torch.ones(3, 3, 2, 2), torch.zeros(3, 3, 2, 2)
    attention = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    blended = attention_blend(rgb, attention, image)
    assert blended.shape == (3, 3, 2, 2)
    for index, expected in enumerate((0.0, 0.25, 1.0)):
        assert torch.equal(blended[index], torch.full((3, 2, 2), expected))


def test_the_retoucher_gives_a_picture_and_its_attention() -> None:
    spliced = torch.rand(3, 3, 64, 64) * 2 - 1
    retouched = Retoucher(levels=6, width=4)(spliced)
    assert retouched.image.shape == (3, 3, 64, 64) and retouched.attention.shape == (3, 1, 64, 64)
    assert retouched.attention.min() >= 0 and retouched.attention.max() <= 1 and retouched.rgb.abs().max() <= 1
    expected = retouched.attention * retouched.rgb + (1 - retouched.attention) * spliced
    torch.testing.assert_close(retouched.image, expected)


def test_unet_uc_has_no_deconvolution_and_drops_out_only_inside() -> None:
    with torch.device("meta"):
        network = UNetUC(outside=4)
    assert not any(isinstance(module, nn.ConvTranspose2d) for module in network.modules())
    dropouts = [any(isinstance(layer, nn.Dropout) for layer in up) for up in network.up]
    assert dropouts == [False, True, True, True, True, False, False, False]


def test_unet_uc_is_built_as_the_authors_code_has_it() -> None:
    with torch.device("meta"):
        network = UNetUC(outside=4)
    layers = list(network.modules())
    assert {each.p for each in layers if isinstance(each, nn.Dropout)} == {0.5}
    assert {each.negative_slope for each in layers if isinstance(each, nn.LeakyReLU)} == {0.2}
    assert {each.mode for each in layers if isinstance(each, nn.Upsample)} == {"nearest"}
    normed = [any(isinstance(layer, nn.BatchNorm2d) for layer in down) for down in network.down]
    assert normed == [False, *[True] * 7, False]  # neither the first nor the innermost, which may be a single pixel
    for up in (*network.up, network.last):
        assert [type(layer) for layer in up][:4] == [nn.ReLU, nn.Upsample, nn.ReflectionPad2d, nn.Conv2d]


def test_a_discriminator_judges_patches_as_pix2pix_does() -> None:
    with torch.device("meta"):
        assert PatchDiscriminator(15)(torch.empty(2, 15, 256, 256)).shape == (2, 1, 30, 30)
        of_two_pictures = PatchDiscriminator(6)
    assert parameters(of_two_pictures) == pytest.approx(2.769, abs=0.001)
    assert sum(isinstance(each, nn.BatchNorm2d) for each in of_two_pictures.body) == 3
    assert [each.negative_slope for each in of_two_pictures.body if isinstance(each, nn.LeakyReLU)] == 4 * [0.2]


def test_weights_start_as_in_the_authors_code_but_for_the_edge_annotators() -> None:
    torch.manual_seed(0)
    sizes = {"retoucher_levels": 5, "retoucher_width": 16, "discriminator_width": 16}
    for annotator in ("paper", "edge"):
        for name, network in Mag(ModelConfig(annotator=annotator, **sizes)).named_children():
            weights = [each.weight.flatten() for each in network.modules() if isinstance(each, nn.Conv2d)]
            scales = [each.weight.flatten() for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
            theirs = 0.019 < torch.cat(weights).std() < 0.021 and 0.01 < torch.cat(scales).std() < 0.03
            assert theirs == ((name, annotator) != ("annotator", "edge")), name


@pytest.mark.parametrize("network", [EdgeAnnotator(), Retoucher(levels=5, width=4), PatchDiscriminator(3, 4)])
def test_what_a_network_says_is_float32_in_low_precision(network: nn.Module) -> None:
    """And not rounded at last: near 1 the steps of bfloat16 are 1/256."""
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        said = network(torch.rand(2, 3, 64, 64) * 2 - 1)
    said = said.rgb if isinstance(network, Retoucher) else said
    assert said.dtype == torch.float32
    if not isinstance(network, PatchDiscriminator):  # whose last layer is a convolution
        assert not torch.equal(said, said.bfloat16().float())
