"""The configuration of a run: one validated object, from a preset in TOML and overrides."""

import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Positive = Field(gt=0)
NotNegative = Field(ge=0)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    """What one iteration sees."""

    crop: int = Positive
    """Side of the pictures, pixels; a multiple of what the networks ask for."""
    spliced: int = Positive
    """Spliced pictures A in a batch."""
    authentic: int = Positive
    """Authentic pictures B in a batch."""
    workers: int = NotNegative
    """Processes that make batches ahead; 0 makes them in the training process."""


class ModelConfig(_Section):
    """Which networks play, and their sizes."""

    annotator: Literal["paper", "edge"]
    tasks: Literal["all", "mask"] = "all"
    """What the annotator learns: mask, edge and classes, or the mask alone (the paper's ablation "single-task")."""
    retoucher: Literal["unet", "none"] = "unet"
    """none: the paper's ablation "No G_R"."""
    retoucher_levels: int = Field(default=9, ge=5)
    retoucher_width: int = Field(default=64, gt=0)
    discriminator_width: int = Field(default=64, gt=0)


class LossConfig(_Section):
    """Weights of the loss terms; the defaults are the paper's."""

    semantic: float = Field(default=10.0, ge=0)
    """L_sem in eq. 5."""
    hiding: float = Field(default=10.0, ge=0)
    """L_adv^GA in eq. 5."""
    realism: float = Field(default=0.25, ge=0)
    """L_adv^DR in eq. 5."""
    fidelity: float = Field(default=0.0, ge=0)
    """An L1 between B^ and A, added to eq. 5: it costs to paint over more than the splice. Not in the paper, but in the
    authors' code."""
    annotation_realism: float = Field(default=1.0, ge=0)
    """L_adv^DA in eq. 8."""
    class_weight: float = Field(default=1.0, ge=0)
    """Weight of a class channel beside mask and edge in each L_bal."""
    mask_cross_entropy: float = Field(default=0.0, ge=0)
    """Binary cross entropy on the mask, added to each L_bal; not in the paper."""
    class_cross_entropy: float = Field(default=0.0, ge=0)
    """The same on the classes, where they are known."""


class OptimConfig(_Section):
    """Adam for all four networks."""

    lr: float = Positive
    """Learning rate of the annotator."""
    adversary_lr: float = Field(default=2e-4, gt=0)
    """Learning rate of retoucher and discriminators."""
    annotator_betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled (AdamW), annotator only."""
    clip: float = Field(default=0.0, ge=0)
    """Largest norm of the annotator's gradient; 0 leaves it alone."""
    accumulate: int = Field(default=1, gt=0)
    """Batches whose gradients are added up before the players step; batch norm sees each batch by itself."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay per iteration of the moving average of the annotator's weights that is validated and exported; 0: none."""


class ScheduleConfig(_Section):
    """How long, in epochs (every photo once as a host), and at what rate: constant, then linear to 0."""

    epochs: int = Positive
    decay_epochs: int = NotNegative
    """The last epochs, over which the rate falls to 0."""
    ramp: int = Field(default=0, ge=0)
    """The first iterations, over which the rate rises from 0."""
    adversary_from: int = Field(default=0, ge=0)
    """Epoch at which retoucher and discriminators join; before it the annotator trains on plain splices."""

    def rate(self, iteration: int, left: int, per_epoch: int) -> float:
        """The factor on the learning rates in [0, 1], at an iteration with which `left` of them are to come."""
        rise = min(1.0, (iteration + 1) / self.ramp) if self.ramp else 1.0
        fall = min(1.0, left / (self.decay_epochs * per_epoch)) if self.decay_epochs else 1.0
        return rise * fall


class Config(_Section):
    """Everything that a run depends on, besides its photos."""

    seed: int = Field(ge=0, lt=1 << 63)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """float32; or bfloat16 or float16 where a layer bears it, float16 with each player's gradients scaled."""
    data: DataConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optim: OptimConfig
    schedule: ScheduleConfig


def presets() -> list[str]:
    """The names that `load` takes."""
    folder = files("mag_train") / "presets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(preset: str, overrides: Sequence[str] = ()) -> Config:
    """A preset with `section.key=value` overrides applied (values in TOML syntax; a bare word is a string).

    Raises ValueError naming the preset, key or value that is not known or not allowed.
    """
    if preset not in presets():
        raise ValueError(f"no preset {preset!r}; there are {', '.join(presets())}")
    tree = tomllib.loads((files("mag_train") / "presets" / f"{preset}.toml").read_text(encoding="utf-8"))
    return _validated(tree, overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with overrides applied, as `load` does."""
    return _validated(config.model_dump(), overrides)


def _validated(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: write section.key=value")
        *sections, name = key.strip().split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise ValueError(f"--set {text}: {section} is a value, not a section")
        branch[name] = _toml_value(value.strip())
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        said = "no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {said}") from None


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
