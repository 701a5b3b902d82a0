"""A training recipe: everything that `ran-pipeline train` does, as one YAML file that is kept beside the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ran_model.augment import Augmentation
from ran_model.checks import check_choice
from ran_model.config import ModelConfig
from ran_model.datasets import LAYOUTS
from ran_model.model_files import default_model_dir
from ran_model.regions import BOXES, STRATEGIES, region_boxes
from ran_model.train_config import TrainConfig

Configuration = TypeVar("Configuration", ModelConfig, TrainConfig, Augmentation)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A single-pass network, often a larger one, that is trained first and then answers beside the annotators.

    model: it is asked about what the student looks at, so its regions are the student's unless it names others.
    trunk: safetensors of its start, see `ran_model.backbones.load_trunk`.
    """

    model: ModelConfig
    train: TrainConfig
    trunk: Path | None = None

    def __post_init__(self) -> None:
        if self.train.epochs == 0:
            raise ValueError("teacher.train.epochs is 0: a teacher must be trained; to do without, leave out teacher")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """data, layout, labels: see `ran_model.datasets.read_listing`.

    The stages: teacher (if any), single_pass, and from the single-pass network the RAN and its twin: the single pass
    trained on for as many steps, by the same settings.
    trunk: a start for the network's own trunk. start: a model directory, or "default" for the one that ships, whose
    trunk and classifier the single pass starts from; `single_pass: {epochs: 0}` then goes on to the RAN at once.
    """

    data: Path
    model: ModelConfig
    single_pass: TrainConfig
    ran: TrainConfig
    layout: str = "auto"
    labels: Path | None = None
    trunk: Path | None = None
    start: Path | None = None
    teacher: Teacher | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe; relative paths count from the current folder. Raises ValueError that names what is wrong."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"recipe {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"recipe {path} is no text in UTF-8, and no YAML") from None
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path} is not YAML: {error}") from None
    values = _mapping(content, "the recipe", {field.name for field in fields(Recipe)})
    for name in ("data", "model", "single_pass", "ran"):
        if name not in values:
            raise ValueError(f"recipe {path} has no {name!r}: it must have data, model, single_pass and ran")
    if values.get("start") == "default":
        values["start"] = default_model_dir()
    check_choice("layout", values.get("layout", "auto"), ("auto", *LAYOUTS))
    for name in ("data", "labels", "trunk", "start"):
        if name == "data" or values.get(name) is not None:
            values[name] = _path(values[name], name)
    if values.get("trunk") and values.get("start"):
        raise ValueError(f"recipe {path} has both trunk and start: the network starts from one of them")
    values["model"] = _model(values["model"], "model")
    for name in ("single_pass", "ran"):
        values[name] = _build(TrainConfig, values[name], name)
    values["augmentation"] = _build(Augmentation, values.get("augmentation"), "augmentation")
    if values.get("teacher") is not None:
        values["teacher"] = _teacher(values["teacher"], values["model"])
    return Recipe(**values)


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes a recipe with every default spelled out."""
    path.write_text(yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False))


def _teacher(content: Any, student: ModelConfig) -> Teacher:
    values = _mapping(content, "teacher", {field.name for field in fields(Teacher)} | {"folded_batch_norm"})
    values.pop("folded_batch_norm", None)  # of recipes beside older models; it is seen in the weights
    own = _mapping(values.get("model"), "teacher.model", {field.name for field in fields(ModelConfig)})
    regions = {"regions": student.regions, "landmark_side": student.landmark_side}
    model = _model(regions | own, "teacher.model")
    for name in ("classes", "aligned_size", "template", "colour"):
        if getattr(model, name) != getattr(student, name):
            raise ValueError(f"teacher.model.{name} differs from model.{name}: both see the same faces and classes")
    are_fixed = all(name in BOXES for name in (*model.regions, *student.regions))
    for name in regions:
        if not are_fixed and getattr(model, name) != getattr(student, name):
            raise ValueError(
                f"teacher.model.{name} differs from model.{name}: a face's own regions, around landmarks or at random, "
                "are the same for both; leave it out"
            )
    trunk = values.get("trunk")
    return Teacher(
        model=model,
        train=_build(TrainConfig, values.get("train"), "teacher.train"),
        trunk=None if trunk is None else _path(trunk, "teacher.trunk"),
    )


def _model(content: Any, where: str) -> ModelConfig:
    """`regions` may be the name of a strategy instead of a list."""
    values = _mapping(content, where, {field.name for field in fields(ModelConfig)})
    if isinstance(values.get("regions"), str):
        strategy = values["regions"]
        if strategy not in STRATEGIES:
            raise ValueError(f"{where}.regions is {strategy!r}: it must be a list, or one of {', '.join(STRATEGIES)}")
        values["regions"] = STRATEGIES[strategy]
    for name in ("regions", "classes"):
        if name in values:
            values[name] = tuple(_list(values[name], f"{where}.{name}", "names"))
    if "template" in values:
        points = values["template"]
        try:
            values["template"] = tuple((float(x), float(y)) for x, y in points)
        except (TypeError, ValueError):
            raise ValueError(f"{where}.template is {points!r}: it must be five points, each x and y") from None
    model = _checked(ModelConfig, values, where)
    try:
        region_boxes(model, 1, face_ids=[""])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return model


def _build(kind: type[Configuration], content: Any, where: str) -> Configuration:
    values = _mapping(content or {}, where, {field.name for field in fields(kind)})
    if "occlusion_sides" in values:
        values["occlusion_sides"] = tuple(_list(values["occlusion_sides"], f"{where}.occlusion_sides", "two sides"))
    return _checked(kind, values, where)


def _checked(kind: type[Configuration], values: dict[str, Any], where: str) -> Configuration:
    for each in fields(kind):
        default = each.default
        if each.name in values and isinstance(default, float) and not isinstance(values[each.name], bool):
            try:
                values[each.name] = float(values[each.name])  # YAML reads 1e-3 as a word
            except (TypeError, ValueError):
                raise ValueError(f"{where}.{each.name} is {values[each.name]!r}: it must be a number") from None
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _path(value: Any, where: str) -> Path:
    if not isinstance(value, str | Path):  # a Path is the model that ships
        raise ValueError(f"{where} is {value!r}: it must be a path")
    return Path(value)


def _list(value: Any, where: str, of: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} is {value!r}: it must be a list of {of}")
    return list(value)


def _mapping(content: Any, where: str, allowed: set[str]) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where} must be a mapping of {', '.join(sorted(allowed))}")
    unknown = sorted(set(content) - allowed)
    if unknown:
        raise ValueError(f"{where} has the unknown key {unknown[0]!r}: allowed are {', '.join(sorted(allowed))}")
    return dict(content)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
