"""What a model is, apart from its weights: the frozen content of `config.json`. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from ran_model.align import FER_TEMPLATE
from ran_model.checks import check_choice, check_number, check_switch, check_whole
from ran_model.labels import EXPRESSIONS

BACKBONES = ("resnet18", "resnet50", "vgg16", "inception_resnet_v1")
ATTENTION_NORMS = ("paper", "authors")
COLOURS = ("rgb", "grey")
SMALLEST_SIDE, LARGEST_SIDE = 32, 1024
SMALLEST_INPUTS = {"inception_resnet_v1": 75}  # below, its layers without padding leave nothing
FIXED_REGIONS = ("whole", "top_left", "top_right", "center_down", "center_90", "center_85")

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A region attention network's configuration. Everything that changes an answer is here, or in the weights.

    name, version: labels for people; the name is no part of the model's identity.
    backbone: the trunk, one of BACKBONES. colour: "grey" turns faces to luma first (a model trained on grey
    faces).
    input_size: pixels of each crop's side as the trunk sees it. aligned_size: pixels of the aligned face's side.
    regions: names in order, region 0 the whole face; `ran_model.regions` knows their boxes.
    landmark_side: side of the square around a landmark region, as a fraction of the face.
    classes: expressions in the order of the logits. mean, std: normalisation of pixels in 0-1.
    attention_norm: "paper" (sigmoid) or "authors" (softmax over regions of the sigmoid, as their code does).
    self_attention: whether μ weighs the regions; without it they count alike. relation_attention: whether ν does, and
    not the self-attention alone. Both are switches for ablations.
    template: five landmarks of the aligned face as fractions, in the order of `ran_model.align`.
    """

    name: str = "ran-resnet18"
    version: str = "1"
    backbone: str = "resnet18"
    colour: str = "grey"
    input_size: int = 224
    aligned_size: int = 224
    regions: tuple[str, ...] = FIXED_REGIONS
    landmark_side: float = 0.4
    classes: tuple[str, ...] = EXPRESSIONS
    mean: float = 0.5
    std: float = 0.25
    attention_norm: str = "paper"
    relation_attention: bool = True
    self_attention: bool = True
    template: Points = FER_TEMPLATE

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BACKBONES)
        check_choice("colour", self.colour, COLOURS)
        check_choice("attention_norm", self.attention_norm, ATTENTION_NORMS)
        for label in self.classes:
            check_choice("a class", label, EXPRESSIONS)
        for field in ("classes", "regions"):
            names = getattr(self, field)
            if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
                raise ValueError(f"{field} is {list(names)}: it must name at least one, and none twice")
        if self.regions[0] != "whole":
            raise ValueError(f"regions start with {self.regions[0]!r}: region 0 must be 'whole'")
        least = SMALLEST_INPUTS.get(self.backbone, SMALLEST_SIDE)
        check_whole("input_size", self.input_size, least, LARGEST_SIDE, f"pixels for {self.backbone}")
        check_whole("aligned_size", self.aligned_size, SMALLEST_SIDE, LARGEST_SIDE, "pixels")
        check_number("landmark_side", self.landmark_side, 0, 1, is_open=True)
        check_number("mean", self.mean, -1, 1)
        check_number("std", self.std, 0, is_open=True)
        check_switch("self_attention", self.self_attention)
        check_switch("relation_attention", self.relation_attention)
        if [len(point) for point in self.template] != [2] * 5:
            raise ValueError("template must hold five landmarks of x and y")
        for point in self.template:
            for value in point:
                check_number("a landmark of template", value, -1, 2)

    @property
    def channels(self) -> int:
        """Colour channels that the trunk takes."""
        return 1 if self.colour == "grey" else 3

    def to_json(self) -> bytes:
        """The content of config.json, for people to read."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def identity(self) -> bytes:
        """Canonical JSON of all that decides an answer: sorted, without spaces and without the name."""
        values = asdict(self)
        del values["name"]
        if values["self_attention"]:
            del values["self_attention"]  # younger than the first models, whose identity must not change
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()

    @staticmethod
    def from_json(text: bytes | str) -> ModelConfig:
        """Reads config.json. Raises ValueError that names what is unknown or wrong."""
        try:
            values: Any = json.loads(text)
        except ValueError as error:
            raise ValueError(f"config.json is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"config.json holds a {type(values).__name__}: it must hold an object")
        known = {field.name for field in fields(ModelConfig)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"config.json has unknown keys {unknown}: it may come from a newer version of this product"
            )
        try:
            for name in ("regions", "classes"):
                if name in values:
                    values[name] = tuple(values[name])
            if "template" in values:
                values["template"] = tuple((float(x), float(y)) for x, y in values["template"])
            return ModelConfig(**values)
        except TypeError as error:
            raise ValueError(f"config.json has a value of the wrong type: {error}") from error
