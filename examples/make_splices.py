"""Make the spliced example pictures and their masks from the authentic ones.

Each splice takes one object out of an authentic photo (the donor) and pastes
it into another authentic photo (the host), the way a retoucher would: the
object is outlined by hand, the outline is refined with GrabCut, the cut-out
is scaled, turned and matched in brightness, and its edge is feathered.

    python examples/make_splices.py                  # examples/photos
    python examples/make_splices.py PHOTOS MASKS

PHOTOS must hold the authentic-*.jpg files; spliced-*.jpg go beside them and
the masks (255 = pasted, 0 = not) go to MASKS under the same name, as PNG.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

JPEG_QUALITY = 90
HERE = Path(__file__).resolve().parent

# Hand-drawn outline of the object in each donor photo, as "x,y" points.
OUTLINES = {
    "astronaut": """
        25,512 22,480 22,420 24,395 25,350 28,330 38,300 48,280 60,260 75,240
        95,225 112,210 114,188 122,182 128,168 138,158 155,150 175,148 184,148
        182,132 176,131 172,120 162,112 154,95 153,75 158,55 170,42 188,36
        195,28 210,19 232,16 255,19 275,28 290,42 299,65 302,85 298,105 288,122
        278,131 270,138 265,150 258,168 256,174 270,181 288,198 300,218 305,238
        325,250 340,265 350,285 358,310 361,330 364,345 380,346 400,344 425,346
        450,358 470,378 485,400 494,430 498,452 505,458 509,480 508,512
    """,
    "sheep": """
        270,72 278,67 293,65 307,68 317,70 323,63 333,58 347,56 360,57 372,62
        378,65 390,58 402,54 413,55 413,65 408,75 400,82 407,90 413,100 418,113
        427,128 437,143 442,158 445,173 451,183 452,200 454,220 453,237 451,253
        446,267 438,280 433,292 420,300 407,305 393,303 387,302 383,320 379,337
        377,350 378,367 382,383 378,395 370,402 360,397 358,390 362,373 362,360
        361,340 362,323 363,303 353,303 343,307 335,305 338,320 337,340 336,360
        335,380 337,400 335,408 322,413 313,408 317,393 318,367 319,340 317,323
        312,317 300,315 288,312 280,303 272,298 263,303 258,307 256,323 251,340
        247,360 245,380 243,397 247,403 238,407 227,410 222,402 223,390 216,382
        222,370 225,353 227,340 229,323 232,303 235,293 227,282 222,287 210,295
        203,303 202,317 197,315 190,323 185,340 181,360 180,380 181,398 185,415
        173,421 162,418 159,405 154,399 159,390 162,370 164,347 166,330 167,320
        158,307 153,292 152,273 153,250 151,227 150,207 146,187 149,167 151,147
        155,132 165,115 178,100 193,93 213,90 233,87 253,88 273,88 290,90 300,90
        290,87 277,79
    """,
    "kitten": """
        247,88 258,91 273,97 287,105 300,117 313,118 323,115 340,112 360,109
        380,108 400,109 412,113 420,115 430,103 443,93 460,84 475,82 476,100
        476,127 473,150 472,170 467,187 462,197 457,207 453,223 448,240 447,257
        448,273 455,283 455,297 448,303 449,323 447,335 439,342 437,353 423,359
        410,357 398,350 395,342 387,333 383,317 363,315 365,333 362,343 358,353
        347,362 333,365 320,362 312,353 305,343 303,327 302,316 283,313 240,312
        242,298 250,290 258,273 262,260 264,240 265,223 264,207 260,193 255,177
        253,160 250,137 247,117 246,100
    """,
    "bee": """
        67,268 68,262 71,256 70,250 74,244 80,236 82,232 87,226 92,222 97,218
        102,212 109,207 118,203 122,198 125,192 128,186 134,181 140,176 148,172
        158,168 165,166 164,160 170,158 178,156 186,159 192,164 198,170 200,172
        206,178 210,185 216,188 220,193 230,197 234,200 246,202 245,206 242,204
        234,202 228,203 232,207 238,212 241,218 244,222 238,224 237,221 235,215
        229,210 220,207 214,204 208,208 200,210 190,211 182,210 181,218 176,224
        173,231 178,236 182,245 183,260 179,261 180,252 178,246 170,244 160,240
        156,238 151,243 146,246 156,252 168,258 176,262 183,268 187,278 190,288
        193,295 187,297 184,288 180,282 180,290 180,298 176,298 176,282 168,283
        158,279 148,272 138,266 130,260 124,260 118,266 110,272 102,279 94,286
        86,287 78,288 70,290 68,282
    """,
    "cow": """
        146,281 152,272 160,265 161,245 164,228 162,212 172,212 182,200 192,195
        199,206 220,208 238,206 262,198 280,189 310,184 350,184 410,188 470,188
        510,184 545,184 562,190 571,201 571,212 568,240 560,249 560,270 560,300
        563,316 570,329 576,345 576,380 578,415 575,428 561,428 561,390 559,371
        552,355 541,333 536,318 531,320 529,331 529,350 528,366 524,376 515,395
        500,410 490,425 475,430 472,420 485,400 498,375 500,355 495,340 475,332
        450,332 425,338 390,334 360,329 338,322 335,340 332,370 332,405 334,430
        315,432 318,415 319,385 315,360 305,370 298,390 296,410 292,428 279,428
        280,420 288,400 289,370 288,340 265,335 252,320 245,305 238,290 220,281
        205,281 190,282 175,290 162,297 152,292
    """,
    "dog": """
        478,45 482,25 490,16 499,22 505,40 510,60 535,61 542,42 552,22 560,19
        566,30 566,70 560,82 562,110 558,145 550,175 535,205 525,212 521,235
        515,262 510,262 505,245 500,235 499,265 488,280 482,295 472,320 471,350
        470,385 475,410 482,435 510,439 516,446 495,451 475,452 462,445 458,425
        445,395 441,360 435,350 429,370 426,395 430,418 455,422 456,431 425,435
        412,425 410,400 402,390 405,360 410,330 410,308 380,300 330,299 305,296
        295,280 278,290 260,300 250,320 235,345 210,370 195,385 190,400 198,420
        235,421 235,430 205,432 202,440 230,442 240,450 235,456 205,454 192,445
        175,425 160,400 152,385 158,372 170,360 178,345 165,335 155,350 135,365
        115,382 90,388 65,382 40,370 28,355 25,340 32,322 50,320 65,330 85,339
        105,332 118,320 124,295 122,275 130,245 141,220 160,200 190,180 230,162
        270,150 310,140 360,138 395,132 435,128 450,120 465,110 478,95 479,75
    """,
    "fig": """
        266,197 275,196 290,196 305,195 315,190 325,181 338,170 348,162 360,157
        380,154 400,156 415,163 430,175 440,190 446,205 448,220 445,240 440,252
        434,260 433,270 425,288 415,304 400,318 380,324 360,320 345,310 330,295
        315,278 308,260 302,240 301,222 299,215 288,212 272,213 267,211 265,205
    """,
}


@dataclass
class Splice:
    """One pasted object; positions are pixels, colours are blue, green, red."""

    name: str
    host: str
    donor: str
    grip: tuple  # the point of the donor ...
    place: tuple  # ... and the point of the host it is pinned to
    scale: tuple  # horizontal and vertical size of the paste
    turn: float = 0.0  # degrees, counter-clockwise
    mirror: bool = False  # mirror the donor left to right first
    band: int = 4  # how far GrabCut may move the outline
    quality: int = 0  # JPEG quality of an extra save of the donor; 0: none
    gain: tuple = (1.0, 1.0, 1.0)  # colour match to the light of the host
    patches: tuple = ()  # colour added to the donor's black patches
    blur: float = 0.0  # softening of the paste, to match the host's focus
    shadows: tuple = ()  # (x, y, half width, half height, strength), on the host


SPLICES = [
    Splice(
        "astronaut-pagoda",
        "pagoda",
        "astronaut",
        grip=(256, 511),
        place=(450, 426),
        scale=(0.72, 0.72),
        quality=80,
        gain=(1.04, 1.02, 1.0),
    ),
    Splice(
        "sheep-meadow",
        "autumn-meadow",
        "sheep",
        grip=(300, 420),
        place=(230, 418),
        scale=(0.42, 0.42),
        gain=(0.97, 0.96, 0.94),
        shadows=((225, 410, 62, 7, 0.45),),
    ),
    Splice(
        "brown-cow-mountain",
        "mountain-path",
        "cow",
        grip=(350, 430),
        place=(520, 430),
        scale=(0.5, 0.5),
        band=3,
        quality=75,
        gain=(0.93, 0.91, 0.95),
        patches=(8, 26, 70),
        shadows=((525, 428, 115, 9, 0.5),),
    ),
    Splice(
        "kitten-table",
        "living-room",
        "kitten",
        grip=(355, 315),
        place=(345, 254),
        scale=(0.42, 0.42),
        turn=17,
        gain=(0.55, 0.68, 0.82),
        blur=0.7,
        shadows=((338, 269, 16, 4, 0.5), (374, 259, 14, 4, 0.5)),
    ),
    Splice(
        "bee-dahlia",
        "dahlia",
        "bee",
        grip=(130, 230),
        place=(458, 190),
        scale=(0.38, 0.38),
        mirror=True,
        band=2,
        gain=(0.85, 0.9, 0.95),
    ),
    Splice(
        "dog-stream",
        "stream",
        "dog",
        grip=(320, 440),
        place=(456, 211),
        scale=(0.21, 0.21),
        mirror=True,
        quality=85,
        gain=(0.85, 0.85, 0.85),
        shadows=((456, 210, 48, 5, 0.5),),
    ),
    Splice(
        "fig-coffee",
        "coffee",
        "fig",
        grip=(360, 230),
        place=(540, 320),
        scale=(0.64, 0.5),
        turn=-35,
        quality=80,
        gain=(0.75, 0.85, 0.98),
        blur=0.5,
        shadows=((522, 338, 48, 40, 0.7),),
    ),
]


def points(text):
    """The points of an outline, as an integer array."""
    return np.array([p.split(",") for p in text.split()], dtype=np.int32)


def cut_out(photo, outline, band):
    """Mask (0 or 255) of the outlined object.

    GrabCut decides within `band` pixels of the outline; inside and outside
    that band the outline rules.
    """
    inside = cv2.fillPoly(np.zeros(photo.shape[:2], np.uint8), [points(outline)], 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band + 1, 2 * band + 1))
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.dilate(inside, disc) == 0] = cv2.GC_BGD
    labels[cv2.erode(inside, disc) == 1] = cv2.GC_FGD
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(photo, labels, None, *models, 5, cv2.GC_INIT_WITH_MASK)
    mask = np.where(labels & 1, 255, 0).astype(np.uint8)
    return cv2.medianBlur(largest_piece(mask), 5)


def largest_piece(mask):
    """The largest connected piece of a mask."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask)
    largest = 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    return np.where(pieces == largest, 255, 0).astype(np.uint8)


def resave(photo, quality):
    """The photo after one more JPEG save."""
    data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def recolour(photo, gain, patches):
    """Match the colours to the host and, where asked, dye the black patches."""
    result = photo.astype(np.float32)
    if patches:
        dark = np.clip((120 - result.max(axis=2)) / 50, 0, 1)
        neutral = np.clip((22 - result[..., 2] + result[..., 0]) / 12, 0, 1)
        result += (dark * neutral)[..., None] * np.float32(patches)
    return np.clip(result * np.float32(gain), 0, 255).astype(np.uint8)


def pin(picture, splice, size):
    """Scale and turn a donor picture so that its grip lands on the place."""
    width = round(picture.shape[1] * splice.scale[0])
    height = round(picture.shape[0] * splice.scale[1])
    x, y = (g * s for g, s in zip(splice.grip, splice.scale, strict=True))
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    if splice.mirror:
        small, x = cv2.flip(small, 1), width - 1 - x
    move = cv2.getRotationMatrix2D((x, y), splice.turn, 1.0)
    move[:, 2] += splice.place[0] - x, splice.place[1] - y
    return cv2.warpAffine(small, move, size, flags=cv2.INTER_CUBIC)


def cast_shadows(host, shadows):
    """Darken the host under the object with soft ellipses."""
    shade = np.zeros(host.shape[:2], np.float32)
    for x, y, half_width, half_height, strength in shadows:
        spot = np.zeros_like(shade)
        cv2.ellipse(spot, (x, y), (half_width, half_height), 0, 0, 360, strength, -1)
        shade = np.maximum(shade, cv2.GaussianBlur(spot, (0, 0), half_height / 3))
    return host * (1 - shade[..., None])


def feather(mask):
    """Opacity of the paste: a soft edge of about a pixel, just inside the mask."""
    soft = cv2.GaussianBlur(mask, (0, 0), 1.0).astype(np.float32) / 255
    return np.clip(1.6 * soft - 0.6, 0, 1)


def paste(host, donor, splice):
    """Return the spliced picture and its mask."""
    mask = cut_out(donor, OUTLINES[splice.donor], splice.band)
    if splice.quality:
        donor = resave(donor, splice.quality)
    donor = recolour(donor, splice.gain, splice.patches)
    size = host.shape[1], host.shape[0]
    donor, mask = pin(donor, splice, size), pin(mask, splice, size)
    if splice.blur:
        donor = cv2.GaussianBlur(donor, (0, 0), splice.blur)
    alpha = feather(mask)
    below = cast_shadows(host, splice.shadows)
    picture = below + alpha[..., None] * (donor - below)
    return np.rint(picture).astype(np.uint8), np.where(alpha >= 0.5, 255, 0)


def read(path):
    """Read a colour picture or fail with its name."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"cannot read {path}")
    return picture


def main():
    """Make every splice from the photos in one folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path, default=HERE / "photos")
    parser.add_argument("masks", nargs="?", type=Path, default=HERE / "masks")
    args = parser.parse_args()
    args.masks.mkdir(parents=True, exist_ok=True)
    for splice in SPLICES:
        host = read(args.photos / f"authentic-{splice.host}.jpg")
        donor = read(args.photos / f"authentic-{splice.donor}.jpg")
        picture, mask = paste(host, donor, splice)
        name = f"spliced-{splice.name}"
        cv2.imwrite(str(args.photos / f"{name}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        cv2.imwrite(str(args.masks / f"{name}.png"), mask.astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(f"{name}: {100 * mask.astype(bool).mean():.1f} % pasted")


if __name__ == "__main__":
    main()
