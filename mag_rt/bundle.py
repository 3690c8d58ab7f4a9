"""The model artefact: a folder, or a zip of it, with a manifest `bundle.json` and ONNX files.

docs/formats.md describes the manifest. Nothing is unpacked: the known files are read into memory, and each must have
the SHA-256 that the manifest gives. Who wrote a bundle may mean ill, so nothing in it is taken on trust.
"""

import hashlib
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from mag_rt.errors import BundleError
from mag_rt.pictures import Normalisation

FORMAT = 2
MANIFEST = "bundle.json"
NETWORKS = {"float32": "annotator.onnx", "float16": "annotator.fp16.onnx", "int8": "annotator.int8.onnx"}
"""The file of the network in each precision; the float32 reference is there always, the others may be."""

SHIPPED = ("edge", "thorough")
"""The bundles that ship with mag_rt; the first is taken where none is named. `thorough` reads a picture four ways."""

MOST_BYTES = {MANIFEST: 1 << 20, **dict.fromkeys(NETWORKS.values(), 1 << 30)}
"""Of each file, at most."""
_READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

CLASS_NAMES = ("person", "car", "truck", "van", "bus", "building", "cat", "dog", "tram", "boat")
"""The K = 10 classes of the annotation channels 2 to 11, in channel order."""


@dataclass(frozen=True)
class Calibration:
    """From a mask's evidence to the probability that the picture holds a splice, and the two thresholds on it.

    score = 1 / (1 + exp(-(slope * (evidence - growth * ln(pixels)) + intercept))); up to `authentic` the verdict is
    authentic, from `spliced` on it is spliced, between them inconclusive, as it is from there on in a `small` picture.
    """

    slope: float
    intercept: float
    authentic: float
    spliced: float
    growth: float = 0.0
    """What the evidence of false alarms gains where the network sees e times as many pixels: the more there is of a
    picture, the more there is to mistake."""
    least_pixels: int = 1
    most_pixels: int = 1
    """Smaller and larger pictures count as these."""
    small: int = 1
    """Pixels below which no picture is called spliced: a photo shrunk so far looks too much like one."""


NEW_IN_FORMAT_2 = {name: getattr(Calibration, name) for name in ("growth", "least_pixels", "most_pixels", "small")}
"""What bundles may leave out of their calibration: those of format 1 all of it."""


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
    format: int = FORMAT
    """Of the manifest that it was read from; what is written has `FORMAT`."""

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

    def check_annotation(self, shape: tuple[int, ...]) -> None:
        """Raise BundleError unless it is that of an annotation for one picture of `multiple` x `multiple` pixels."""
        if shape != (1, 2 + len(self.classes), self.multiple, self.multiple):
            found, side = " x ".join(map(str, shape)), self.multiple
            raise BundleError(
                f"the network gives {found} numbers for {side} x {side} pixels and {len(self.classes)} classes"
            )

    @property
    def sha256(self) -> str:
        """Of the reference network, hexadecimal."""
        return _sha256(self.network)


def numbers(facts: dict[str, Any]) -> dict[str, float]:
    """Those facts that are numbers, below 1e15 in size: nothing holds a bundle's facts, for readers, to any type."""
    return {key: value for key, value in facts.items() if isinstance(value, (int, float)) and abs(value) < 1e15}


def bundled(name: str = SHIPPED[0]) -> Path:
    """The bundle of `SHIPPED` that is called so."""
    return Path(str(files("mag_rt") / "models" / name))


def located(model: str | os.PathLike[str] | None) -> Path:
    """Where the bundle lies that `model` means: a folder or a zip, else one of `SHIPPED`; None: the first of these."""
    if model is None:
        return bundled()
    path = Path(model)
    return bundled(str(path)) if str(path) in SHIPPED and not path.exists() else path


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
            return _parse(path, lambda name: _read_file(path, name))
        if path.exists() and not path.is_file():  # a pipe would wait forever
            raise BundleError(f"{path}: neither a bundle folder nor a zip file of one")
        with zipfile.ZipFile(path) as archive:
            inside = _folder_inside(path, archive)
            return _parse(path, lambda name: _read_member(path, archive, str(inside / name)))
    except BundleError:
        raise
    except FileNotFoundError:
        raise BundleError(f"{path}: no such bundle; {' and '.join(SHIPPED)} ship with magrt") from None
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # zipfile's own, and what it lets through of zlib, bz2, lzma and names that are no text
        raise BundleError(f"{path}: neither a bundle folder nor a zip file of one ({error})") from None


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise BundleError(f"{folder}: {name} is a link that leads out of the bundle")
    if not stat.S_ISREG(path.stat().st_mode):
        raise BundleError(f"{folder}: {name} is not a regular file")
    with open(path, "rb", opener=lambda place, _: os.open(place, _READING)) as file:
        return _at_most(folder, name, file.read)


def _folder_inside(path: Path, archive: zipfile.ZipFile) -> PurePosixPath:
    """Where in a zip file the bundle lies."""
    names = archive.namelist()
    manifests = [name for name in names if PurePosixPath(name).name == MANIFEST]
    if len(manifests) > 1:
        raise BundleError(f"{path}: more than one {MANIFEST}")
    inside = PurePosixPath(manifests[0] if manifests else MANIFEST).parent
    for name in NETWORKS.values():
        if names.count(str(inside / name)) > 1:
            raise BundleError(f"{path}: {name} is there more than once")
    return inside


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return _at_most(path, PurePosixPath(name).name, file.read)


def _at_most(path: Path, name: str, read: Callable[[int], bytes]) -> bytes:
    data = read(MOST_BYTES[name] + 1)
    if len(data) > MOST_BYTES[name]:
        raise BundleError(f"{path}: {name} has more than {MOST_BYTES[name] >> 20} MB")
    return data


def _parse(path: Path, read: Callable[[str], bytes]) -> Bundle:
    try:
        manifest = json.loads(_member(path, MANIFEST, read), parse_constant=_finite, parse_float=_finite)
        if manifest["format"] > FORMAT:
            raise BundleError(
                f"{path}: format {manifest['format']} is newer than this magrt reads ({FORMAT}); upgrade it"
            )
        listed = dict(manifest["files"])
        if unknown := set(listed) - set(NETWORKS.values()):
            raise BundleError(f"{path}: {MANIFEST} lists {min(unknown)!r}, which is no file of a bundle")
        networks = {
            precision: _network(path, name, listed[name], read)
            for precision, name in NETWORKS.items()
            if precision == "float32" or name in listed
        }
        image, calibration = manifest["input"], {**NEW_IN_FORMAT_2, **manifest["calibration"]}
        multiple = _whole(image, "multiple", 1, 1024)
        authentic = _number(calibration, "authentic", 0, 1)
        most_pixels = _whole(calibration, "most_pixels", 1, 1 << 40)
        return Bundle(
            annotator=_name(manifest, "annotator"),
            multiple=multiple,
            max_side=_whole(image, "max_side", multiple, 1 << 16),
            normalisation=Normalisation(_number(image, "scale", 1e-6, 1e6), _number(image, "offset", -1e6, 1e6)),
            classes=_classes(manifest),
            mask_threshold=_number(manifest, "mask_threshold", 0, 1),
            calibration=Calibration(
                slope=_number(calibration, "slope", -50, 50),
                intercept=_number(calibration, "intercept", -300, 300),
                authentic=authentic,
                spliced=_number(calibration, "spliced", authentic, 1),
                growth=_number(calibration, "growth", 0, 50),
                least_pixels=_whole(calibration, "least_pixels", 1, most_pixels),
                most_pixels=most_pixels,
                small=_whole(calibration, "small", 1, 1 << 40),
            ),
            training=dict(manifest["training"]),
            weights_licence=_text(manifest, "weights_licence"),
            networks=networks,
            format=_whole(manifest, "format", 1, FORMAT),
        )
    except KeyError as error:
        raise BundleError(f"{path}: {MANIFEST} lacks {error}") from None
    except RecursionError:
        raise BundleError(f"{path}: {MANIFEST} is not a bundle's manifest (nested too deeply)") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: {MANIFEST} is not a bundle's manifest ({error})") from None


def _number(holder: dict[str, Any], key: str, low: float, high: float) -> float:
    value = holder[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:  # NaN is not, either
        raise ValueError(f"{key} is not a number from {low:g} to {high:g}")
    return float(value)


def _whole(holder: dict[str, Any], key: str, low: int, high: int) -> int:
    value = _number(holder, key, low, high)
    if value != math.floor(value):
        raise ValueError(f"{key} is not a whole number")
    return int(value)


def _text(holder: dict[str, Any], key: str) -> str:
    if not isinstance(holder[key], str):
        raise ValueError(f"{key} is no text")
    return str(holder[key])


def _name(holder: dict[str, Any], key: str) -> str:
    """A text that may be a part of a file's name."""
    text = _text(holder, key)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise ValueError(f"{key} is not a name of letters, digits, - and _")
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number")
    return value


def _classes(manifest: dict[str, Any]) -> tuple[str, ...]:
    classes = manifest["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes is no list of names")
    if manifest["output"]["channels"] != ["mask", "edge", *classes] or len(set(classes)) < len(classes):
        raise ValueError("classes and the channels of the output do not agree")
    return tuple(classes)


def _network(path: Path, name: str, sha256: str, read: Callable[[str], bytes]) -> bytes:
    network = _member(path, name, read)
    if _sha256(network) != sha256:
        raise BundleError(f"{path}: {name} is damaged: it does not have the SHA-256 that {MANIFEST} gives")
    # The key under which a tensor of ONNX names the file that holds its numbers. OpenVINO, if not ONNX Runtime, looks
    # for it in the working directory. However the rest is encoded, these bytes are there; in what we write they are
    # not.
    if b"location" in network:
        raise BundleError(f"{path}: {name} refers to data outside of the bundle")
    return network


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _member(path: Path, name: str, read: Callable[[str], bytes]) -> bytes:
    try:
        return read(name)
    except (FileNotFoundError, KeyError):
        raise BundleError(f"{path}: incomplete: {name} is missing") from None
