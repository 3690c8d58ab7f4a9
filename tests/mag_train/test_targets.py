"""The truth that the networks are held to: eq. 6's C, C', the edge and what does not count."""

import torch

from mag_rt.bundle import CLASS_NAMES
from mag_train.data.stream import RawPictures
from mag_train.data.targets import EDGE_WIDTH, mask_edge, pictures


def raw(mask: torch.Tensor, labels: torch.Tensor) -> RawPictures:
    return RawPictures(torch.zeros(*mask.shape, 3, dtype=torch.uint8), mask, labels)


def test_channels_are_mask_edge_and_the_classes_in_their_order() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, 2, 3] = 1 + CLASS_NAMES.index("dog")
    made = pictures(raw(torch.zeros(1, 8, 8, dtype=torch.uint8), labels), torch.device("cpu"))
    assert made.truth.shape == (1, 12, 8, 8)
    assert made.truth.sum() == 1 and made.truth[0, 2 + CLASS_NAMES.index("dog"), 2, 3] == 1
    assert made.counted.min() == 1


def test_classes_count_only_in_authentic_areas() -> None:
    mask, labels = torch.zeros(1, 8, 8, dtype=torch.uint8), torch.ones(1, 8, 8, dtype=torch.uint8)
    mask[0, :4] = 1
    made = pictures(raw(mask, labels), torch.device("cpu"))
    assert made.classes[0, 0].min() == 1  # C_s: the whole picture shows persons
    assert torch.equal(made.authentic_truth[0, 2], 1 - mask[0].float())  # C': only the authentic ones
    assert torch.equal(made.authentic_truth[:, :2], made.truth[:, :2])


def test_unlabelled_pixels_count_in_class_channels_no_more_but_in_mask_and_edge() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, 0, 0] = 255
    made = pictures(raw(torch.zeros(1, 8, 8, dtype=torch.uint8), labels), torch.device("cpu"))
    assert made.counted[0, :2].min() == 1
    assert made.counted[0, 2:, 0, 0].max() == 0 and made.counted[0, 2:].sum() == 10 * 63
    assert made.truth[0, 2:].max() == 0


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    batch = raw(torch.zeros(1, 2, 3, dtype=torch.uint8), torch.zeros(1, 2, 3, dtype=torch.uint8))
    batch.image[0, 1, 2] = torch.tensor([255, 0, 51], dtype=torch.uint8)
    image = pictures(batch, torch.device("cpu")).image
    assert image.shape == (1, 3, 2, 3)
    torch.testing.assert_close(image[0, :, 1, 2], torch.tensor([1.0, -1.0, -0.6]))


def test_of_an_annotator_of_the_mask_alone_nothing_else_counts() -> None:
    plane = torch.ones(1, 4, 4, dtype=torch.uint8)
    counted = pictures(raw(plane, plane), torch.device("cpu"), mask_only=True).counted
    assert counted[:, 0].all() and not counted[:, 1:].any()


def test_the_edge_lies_on_both_sides_of_the_boundary() -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    edge = mask_edge(mask)
    assert edge[0, 0, 5].tolist() == [0.0] * 6 + [1.0] * EDGE_WIDTH + [0.0] * 6
    assert mask_edge(torch.ones(1, 1, 8, 8)).max() == 0  # the picture's border is no edge
    assert mask_edge(torch.zeros(1, 1, 8, 8)).max() == 0
