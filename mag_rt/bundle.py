"""The model artefact: a folder, or a zip of it, with a manifest `bundle.json` and ONNX files.

docs/formats.md describes the manifest. Nothing is unpacked: the known files are read into memory, and each must have
the SHA-256 that the manifest gives.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from mag_rt.errors import BundleError
from mag_rt.pictures import Normalisation

FORMAT = 1
MANIFEST = "bundle.json"
NETWORKS = {"float32": "annotator.onnx", "float16": "annotator.fp16.onnx", "int8": "annotator.int8.onnx"}
"""The file of the network in each precision; the float32 reference is there always, the others may be."""

CLASS_NAMES = ("person", "car", "truck", "van", "bus", "building", "cat", "dog", "tram", "boat")
"""The K = 10 classes of the annotation channels 2 to 11, in channel order."""


@dataclass(frozen=True)
class Calibration:
    """From a mask's evidence to the probability that the picture holds a splice, and the two thresholds on it.

    score = 1 / (1 + exp(-(slope * evidence + intercept))); up to `authentic` the verdict is authentic, from `spliced`
    on it is spliced, between them inconclusive.
    """

    slope: float
    intercept: float
    authentic: float
    spliced: float


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory."""

    annotator: str
    """Which network: edge or paper."""
    multiple: int
    """Input sides are multiples of this many pixels."""
    max_side: int
    """Pictures with a longer side are shrunk to it by default, pixels."""
    normalisation: Normalisation
    classes: tuple[str, ...]
    mask_threshold: float
    """A pixel whose probability reaches it belongs to a region."""
    calibration: Calibration
    training: dict[str, Any]
    """Facts for a reader: what the network was trained on and for how long."""
    weights_licence: str
    networks: dict[str, bytes]
    """ONNX by precision (`NETWORKS`): image N x 3 x H x W to annotation N x (2+K) x H x W, probabilities."""

    @property
    def network(self) -> bytes:
        """The float32 reference."""
        return self.networks["float32"]

    def network_in(self, precision: str) -> bytes:
        """The network in a precision. Raises BundleError when the bundle has none."""
        try:
            return self.networks[precision]
        except KeyError:
            raise BundleError(f"the bundle has no {precision} network (it has {', '.join(self.networks)})") from None

    @property
    def sha256(self) -> str:
        """Of the reference network, hexadecimal."""
        return _sha256(self.network)


def bundled() -> Path:
    """The bundle that ships with mag_rt."""
    return Path(str(files("mag_rt") / "models" / "edge"))


def save(bundle: Bundle, folder: Path) -> None:
    """Write a bundle as a folder; the manifest comes last, so that a folder without one is no bundle yet."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for precision, name in NETWORKS.items():
        if precision in bundle.networks:
            (folder / name).write_bytes(bundle.networks[precision])
        else:
            (folder / name).unlink(missing_ok=True)  # of the bundle that was here before
    manifest = {
        "format": FORMAT,
        "annotator": bundle.annotator,
        "input": {
            "name": "image",
            "layout": "NCHW",
            "colour": "RGB",
            "scale": bundle.normalisation.scale,
            "offset": bundle.normalisation.offset,
            "multiple": bundle.multiple,
            "max_side": bundle.max_side,
        },
        "output": {"name": "annotation", "channels": ["mask", "edge", *bundle.classes]},
        "classes": bundle.classes,
        "mask_threshold": bundle.mask_threshold,
        "calibration": asdict(bundle.calibration),
        "training": bundle.training,
        "weights_licence": bundle.weights_licence,
        "files": {NETWORKS[precision]: _sha256(network) for precision, network in bundle.networks.items()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> Bundle:
    """The bundle at `path`, a folder or a zip file of one. Raises BundleError, saying what is wrong with it."""
    try:
        if path.is_dir():
            return _parse(path, lambda name: (path / name).read_bytes())
        with zipfile.ZipFile(path) as archive:
            manifests = [name for name in archive.namelist() if PurePosixPath(name).name == MANIFEST]
            inside = PurePosixPath(manifests[0] if manifests else MANIFEST).parent
            return _parse(path, lambda name: archive.read(str(inside / name)))
    except zipfile.BadZipFile:
        raise BundleError(f"{path}: neither a bundle folder nor a zip file of one") from None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None


def _parse(path: Path, read: Callable[[str], bytes]) -> Bundle:
    try:
        manifest = json.loads(_member(path, MANIFEST, read))
        if manifest["format"] > FORMAT:
            raise BundleError(
                f"{path}: format {manifest['format']} is newer than this magrt reads ({FORMAT}); upgrade it"
            )
        listed = manifest["files"]
        networks = {
            precision: _network(path, name, listed[name], read)
            for precision, name in NETWORKS.items()
            if precision == "float32" or name in listed
        }
        image = manifest["input"]
        return Bundle(
            annotator=str(manifest["annotator"]),
            multiple=int(image["multiple"]),
            max_side=int(image["max_side"]),
            normalisation=Normalisation(float(image["scale"]), float(image["offset"])),
            classes=tuple(manifest["classes"]),
            mask_threshold=float(manifest["mask_threshold"]),
            calibration=Calibration(**{key: float(value) for key, value in manifest["calibration"].items()}),
            training=dict(manifest["training"]),
            weights_licence=str(manifest["weights_licence"]),
            networks=networks,
        )
    except KeyError as error:
        raise BundleError(f"{path}: {MANIFEST} lacks {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not a bundle's manifest ({error})") from None


def _network(path: Path, name: str, sha256: str, read: Callable[[str], bytes]) -> bytes:
    network = _member(path, name, read)
    if _sha256(network) != sha256:
        raise BundleError(f"{path}: {name} is damaged: it does not have the SHA-256 that {MANIFEST} gives")
    return network


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _member(path: Path, name: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(name)
    except (FileNotFoundError, KeyError):
        raise BundleError(f"{path}: incomplete: {name} is missing") from None
