"""What has to stay float32 in the float16 network: each choice against float32, on photos.

    python benchmarks/float16.py PHOTOS [--count 40] [--bundle DIR]

Every float16 node's result is rounded to float16, as a GPU does it. Worst over the photos: the greatest difference of
any probability of any map, the mean difference of the mask, the IoU of the areas above the threshold.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mag_rt import bundle as bundles
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.parity import Agreement, compare
from mag_rt.pictures import decode, pad, shrink
from mag_rt.sources import find
from mag_train import half

Images = NDArray[np.float32]


def rehearsal(network: bytes) -> Callable[[Images], Images]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(half.rehearsed(network), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["annotation"], {"image": images})[0]


def rounded(images: Images) -> Images:
    return images.astype(np.float16).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--bundle", type=Path, default=bundles.bundled())
    options = parser.parse_args()
    bundle = bundles.load(options.bundle)
    shipped = rehearsal(half.half(bundle.network))
    with patch.object(half, "_exact_nodes", lambda graph: set()):
        everything = rehearsal(half.half(bundle.network))
    choices: dict[str, Callable[[Images], Images]] = {
        "float32 input and high-pass": shipped,
        "float16 input, float32 high-pass": lambda images: shipped(rounded(images)),
        "float32 input, float16 high-pass": everything,
    }
    files = [Path(frame.source) for frame in find([options.photos]) if frame.source]
    reference = OnnxRuntimeBackend(bundle).probabilities
    found: dict[str, list[Agreement]] = {name: [] for name in choices}
    for file in files[:: max(1, len(files) // options.count)][: options.count]:
        photo = pad(shrink(decode(file.read_bytes()).picture, 512), bundle.multiple)
        image = bundle.normalisation([photo])
        expected = reference(image)
        for name, annotate in choices.items():
            found[name].append(compare(annotate(image), expected, bundle.mask_threshold))
    print(f"{'':34} probability       mask        IoU   ({len(found[name])} photos, the worst of them)")
    for name, each in found.items():
        worst = max(a.probability for a in each), max(a.mask for a in each), min(a.iou for a in each)
        print(f"{name:34} {worst[0]:11.4f} {worst[1]:10.5f} {worst[2]:10.4f}")


if __name__ == "__main__":
    main()
