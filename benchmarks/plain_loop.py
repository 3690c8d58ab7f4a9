"""The loop that a competent engineer writes first, as the measure of everything that is cleverer.

    python benchmarks/plain_loop.py FOLDER OUT [--torch]

cv2.imread, the same resize and padding, the same network in float32 with the library's default threads, a picture at a
time, the same outputs written: mask, overlay with its legend, thumbnails, a line of JSON.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from mag_rt import bundle as bundles
from mag_rt.findings import Counts, read, score, suspicion, verdict
from mag_rt.sinks.images import STRONGEST_HEAT, THUMBNAIL_SIDE

FONT = cv2.FONT_HERSHEY_SIMPLEX
Network = Callable[[np.ndarray], np.ndarray]


def by_onnxruntime(bundle: bundles.Bundle) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(bundle.network, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image})[0]


def by_torch(bundle: bundles.Bundle) -> Network:
    import torch

    from mag_train.models.annotator import ANNOTATORS
    from mag_train.warm_start import warm_start

    network = ANNOTATORS[bundle.annotator]()
    warm_start(network, bundles.bundled(), torch.rand(4, 3, 128, 128) * 2 - 1)
    network = network.eval().to(memory_format=torch.channels_last)

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(image).contiguous(memory_format=torch.channels_last)).numpy()

    return run


def scan(folder: Path, out: Path, network: Network, bundle: bundles.Bundle) -> None:
    for name in ("masks", "overlays", "thumbnails"):
        (out / name).mkdir(parents=True, exist_ok=True)
    with (out / "findings.jsonl").open("w") as lines:
        for path in sorted(folder.iterdir()):
            picture = cv2.imread(str(path))
            height, width = picture.shape[:2]
            factor = min(1, bundle.max_side / max(height, width))
            small = picture
            if factor < 1:
                small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            h, w = small.shape[:2]
            padded = cv2.copyMakeBorder(small, 0, -h % bundle.multiple, 0, -w % bundle.multiple, cv2.BORDER_REFLECT_101)
            image = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1)[None], np.float32) / 127.5 - 1
            maps = network(image)[0, :, :h, :w]
            probability = cv2.resize(maps[0], (width, height))
            mask = (probability * 255 + 0.5).astype(np.uint8)
            grey = np.bincount((maps[0] * 255 + 0.5).astype(np.uint8).ravel(), minlength=256)
            likely = np.array([np.count_nonzero(plane >= 0.5) for plane in maps[2:]])
            counts = Counts(grey, likely, *suspicion(mask, bundle.mask_threshold))
            reading = read((mask, counts), bundle.mask_threshold, bundle.classes)
            heat = cv2.applyColorMap(mask, cv2.COLORMAP_INFERNO)
            opacity = STRONGEST_HEAT * probability[..., None]
            overlay = (opacity * heat + (1 - opacity) * picture).astype(np.uint8)
            outlines = [np.array(region.polygon, np.int32) for region in reading.regions]
            thickness = max(1, max(height, width) // 500)
            cv2.polylines(overlay, outlines, True, (0, 0, 0), 3 * thickness, cv2.LINE_AA)
            cv2.polylines(overlay, outlines, True, (255, 255, 255), thickness, cv2.LINE_AA)
            for number, outline in enumerate(outlines, 1):
                cv2.putText(overlay, str(number), outline[0].tolist(), FONT, max(height, width) / 2400, (255, 255, 255))
            value = score(reading.evidence, reading.pixels, bundle.calibration)
            called = verdict(value, reading.pixels, bundle.calibration)
            strip = np.zeros((max(8, width // 25), width, 3), np.uint8)
            strip[2:-2, : width // 5] = cv2.applyColorMap(
                np.uint8([np.linspace(0, 255, width // 5)]), cv2.COLORMAP_INFERNO
            )
            words = f"splice probability 0 to 1; score {value:.2f}: {called}"
            cv2.putText(strip, words, (width // 4, strip.shape[0] * 2 // 3), FONT, width / 1500, (255, 255, 255))
            cv2.imwrite(str(out / "masks" / f"{path.stem}.png"), mask)
            cv2.imwrite(str(out / "overlays" / f"{path.stem}.jpg"), np.vstack([overlay, strip]))
            for name, image in ((path.stem, picture), (f"{path.stem}-mask", mask)):
                factor = min(1, THUMBNAIL_SIDE / max(height, width))
                small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(out / "thumbnails" / f"{name}.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 70])
            line = {
                "source": str(path),
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "score": value,
                "verdict": called,
                "regions": [asdict(region) for region in reading.regions],
                "objects": [asdict(seen) for seen in reading.objects],
            }
            lines.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--torch", action="store_true", help="torch in eager mode instead of onnxruntime")
    arguments = parser.parse_args()
    bundle = bundles.load(bundles.bundled())
    network = (by_torch if arguments.torch else by_onnxruntime)(bundle)
    began = time.perf_counter()
    scan(arguments.folder, arguments.out, network, bundle)
    print(json.dumps({"seconds": time.perf_counter() - began}))  # the model was loaded before


if __name__ == "__main__":
    main()
