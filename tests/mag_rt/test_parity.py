"""A network that reads the check pictures otherwise than the reference does is refused, with the numbers."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mag_rt import bundle as bundles
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle
from mag_rt.parity import BOUNDS, Agreement, Annotate, ParityError, check_pictures, compare, gate

SIZE = (96, 128)
Change = Callable[[NDArray[np.float32]], NDArray[np.floating]]


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return bundles.load(bundles.bundled())


@pytest.fixture(scope="module")
def reference(shipped: Bundle) -> Annotate:
    return OnnxRuntimeBackend(shipped).probabilities


def changed(reference: Annotate, change: Change) -> Annotate:
    return lambda images: change(reference(images))


def test_the_reference_agrees_with_itself_whatever_the_batch(shipped: Bundle, reference: Annotate) -> None:
    batches = []

    def annotate(images: NDArray[np.float32]) -> NDArray[np.float32]:
        batches.append(images.shape)
        return reference(images)

    agreement = gate(annotate, shipped, "float32", 4, SIZE)
    assert agreement.probability < 1e-4 and agreement.iou == 1
    assert set(batches) == {(4, 3, *SIZE)}  # an engine of a fixed batch takes no other


def test_the_check_pictures_hold_something_to_agree_on(shipped: Bundle, reference: Annotate) -> None:
    images = shipped.normalisation(check_pictures(SIZE))
    shares = (reference(images)[:, 0] >= 0.5).mean(axis=(1, 2))
    assert (shares[:2] > 0.05).all() and (shares[2:] < 0.05).all()
    np.testing.assert_array_equal(images, shipped.normalisation(check_pictures(SIZE)))


def shift(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.roll(maps, 8, axis=3)


def blunt(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return 0.9 * maps + 0.05


def swap(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return maps[::-1]


def silent(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros_like(maps)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("change", [shift, blunt, swap, silent])
def test_another_reading_is_refused_with_the_numbers(
    shipped: Bundle, reference: Annotate, precision: str, change: Change
) -> None:
    with pytest.raises(ParityError, match=rf"the {precision} network disagrees .*: probability \d\.\d+, mask 0\.\d+"):
        gate(changed(reference, change), shipped, precision, 4, SIZE)


@pytest.mark.parametrize(("precision", "more"), [("float32", 0.02), ("float16", 0.05)])
def test_another_reading_of_a_class_is_refused_too(
    shipped: Bundle, reference: Annotate, precision: str, more: float
) -> None:
    def see_a_cat(maps: NDArray[np.float32]) -> NDArray[np.float32]:
        maps[0, 8, :5, :5] += more
        return maps

    with pytest.raises(ParityError, match=rf"probability {more}"):
        gate(changed(reference, see_a_cat), shipped, precision, 4, SIZE)


def test_maps_are_compared_by_their_worst_probability_the_mask_alone_and_the_areas_above_the_threshold() -> None:
    expected = np.zeros((1, 3, 1, 4), np.float32)
    expected[0, 0, 0] = 0.375, 0.375, 0, 0
    given = expected.copy()
    given[0, 0, 0] = 0.375, 0, 0.375, 0
    given[0, 2] = 0.5
    assert compare(given, expected, 0.25) == Agreement(probability=0.5, mask=0.1875, iou=1 / 3)
    assert compare(given, expected, 0.75).iou == 1  # nothing, and rightly so


@pytest.mark.parametrize("precision", BOUNDS)
def test_each_bound_counts_on_its_own(precision: str) -> None:
    bounds = BOUNDS[precision]
    assert bounds.within(bounds)
    for worse in (
        replace(bounds, probability=bounds.probability * 1.01),
        replace(bounds, mask=bounds.mask * 1.01),
        replace(bounds, iou=bounds.iou * 0.99),
    ):
        assert not worse.within(bounds)


def test_rounding_to_float16_is_no_other_reading(shipped: Bundle, reference: Annotate) -> None:
    gate(changed(reference, lambda maps: maps.astype(np.float16)), shipped, "float16", 4, SIZE)


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "is NaN"), (np.inf, "is infinite"), (1.5, "not in [0, 1]"), (-0.5, "not in [0, 1]")]
)
def test_what_is_no_probability_is_named(shipped: Bundle, reference: Annotate, value: float, said: str) -> None:
    def broken(maps: NDArray[np.float32]) -> NDArray[np.float32]:
        maps[0, 5, 10:20, 10:20] = value
        return maps

    with pytest.raises(ParityError, match=re.escape(said)):
        gate(changed(reference, broken), shipped, "float32", 6, SIZE)
    with pytest.raises(ParityError, match="beyond 65504, float16's largest"):
        gate(changed(reference, broken), shipped, "float16", 6, SIZE)


def test_maps_of_another_shape_are_refused(shipped: Bundle, reference: Annotate) -> None:
    with pytest.raises(ParityError, match="6 x 1 x 96 x 128 where the reference gives 6 x 12 x 96 x 128"):
        gate(changed(reference, lambda maps: maps[:, :1]), shipped, "float32", 6, SIZE)
