"""Training recipes: read, refused with the key that is wrong, and written so that they read the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.stages import check_starts
from ran_model.config import ModelConfig
from ran_model.model_files import CONFIG_FILE, default_model_dir
from ran_model.recipe import read_recipe, write_recipe
from ran_model.regions import STRATEGIES

DEFAULT = Path(__file__).parents[2] / "jobs" / "recipes" / "default.yaml"
SMALLEST = "data: d\nmodel: {}\nsingle_pass: {}\nran: {}\n"


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(DEFAULT.parent.iterdir()), ids=lambda path: path.name)
def test_every_recipe_that_ships_can_be_read_and_fits_its_start(path: Path) -> None:
    read = read_recipe(path)
    if read.teacher is not None and read.teacher.trunk is not None and not read.teacher.trunk.exists():
        read = replace(read, teacher=None)  # the trunk is not part of the product
    if read.start is not None:
        check_starts(read)
        start = ModelConfig.from_json((read.start / CONFIG_FILE).read_bytes())
        assert (read.model.aligned_size, read.model.input_size) == (start.aligned_size, start.input_size)
        assert (read.model.template, read.model.regions) == (start.template, start.regions)


def test_the_recipe_for_own_faces_has_what_kept_crops_need() -> None:
    own = read_recipe(DEFAULT.with_name("own_faces.yaml"))
    assert (own.data, own.labels, own.layout) == (Path("out"), Path("labels.csv"), "auto")
    assert own.start == default_model_dir()


def test_the_default_recipe_is_whole() -> None:
    default = read_recipe(DEFAULT)
    assert default.model.name == "ran-resnet18-ferplus-64"
    assert default.teacher is not None
    assert default.teacher.model.backbone == "inception_resnet_v1"
    assert default.ran.learning_rate == 2e-4


def test_the_recipe_for_gpus_can_be_read() -> None:
    recipe = read_recipe(DEFAULT.with_name("gpu.yaml"))
    assert recipe.teacher is not None
    assert recipe.teacher.model.input_size == 160
    assert recipe.single_pass.teacher_share == recipe.ran.teacher_share == 0.8
    assert recipe.augmentation.occlusion_sides == (0.15, 0.6)


def test_the_recipe_beside_the_model_that_ships_can_be_read() -> None:
    shipped, default = read_recipe(default_model_dir() / "recipe.yaml"), read_recipe(DEFAULT)
    assert shipped.model == default.model
    assert shipped.teacher is not None
    assert default.teacher is not None
    as_shipped = replace(default.teacher.train, bf16=True)  # what training took where there were instructions for it
    assert shipped.teacher == replace(default.teacher, train=as_shipped)


def test_a_recipe_may_start_from_a_model(tmp_path: Path) -> None:
    short = read_recipe(DEFAULT.with_name("short.yaml"))
    assert short.start == default_model_dir()
    write_recipe(short, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == short


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    default = read_recipe(DEFAULT)
    write_recipe(default, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == default


def test_strategies_and_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = "data: d\nmodel: {regions: affectnet}\nsingle_pass: {learning_rate: 1e-3}\nran: {margin: 0}\n"
    read = read_recipe(recipe(tmp_path, text))
    assert read.model.regions == STRATEGIES["affectnet"]
    assert read.single_pass.learning_rate == 0.001
    assert isinstance(read.ran.margin, float)
    points = "[[0, 0], [1, 0], [0.5, 0.5], [0, 1], [1, 1]]"  # a model's identity must not hang on 1 or 1.0
    model = read_recipe(recipe(tmp_path, SMALLEST.replace("model: {}", f"model: {{template: {points}}}"))).model
    assert ModelConfig.from_json(model.to_json()).identity() == model.identity()


@pytest.mark.parametrize("regions", ["landmark", "random", "affectnet", "[whole, nose, top_left]"])
def test_a_teacher_looks_where_its_student_does(tmp_path: Path, regions: str) -> None:
    text = SMALLEST.replace("model: {}", f"model: {{regions: {regions}, landmark_side: 0.3}}")
    read = read_recipe(recipe(tmp_path, text + "teacher: {model: {backbone: resnet50}}\n"))
    assert read.teacher is not None
    assert read.teacher.model.regions == read.model.regions
    assert read.teacher.model.landmark_side == 0.3
    write_recipe(read, tmp_path / "again.yaml")
    assert read_recipe(tmp_path / "again.yaml") == read


def test_only_fixed_regions_of_a_teacher_may_be_its_own(tmp_path: Path) -> None:
    fixed = SMALLEST.replace("model: {}", "model: {regions: affectnet}") + "teacher: {model: {regions: fixed}}\n"
    teacher = read_recipe(recipe(tmp_path, fixed)).teacher
    assert teacher is not None
    assert teacher.model.regions == STRATEGIES["fixed"]
    for ours, theirs, key in (
        ("regions: landmark", "regions: fixed", "regions"),
        ("regions: fixed", "regions: random", "regions"),
        ("regions: random", "regions: [whole, random_1]", "regions"),
        ("regions: landmark", "landmark_side: 0.2", "landmark_side"),
    ):
        text = SMALLEST.replace("model: {}", f"model: {{{ours}}}") + f"teacher: {{model: {{{theirs}}}}}\n"
        with pytest.raises(ValueError, match=rf"teacher\.model\.{key} differs from model\.{key}: .* leave it out"):
            read_recipe(recipe(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: d\nmodel: {}\nran: {}\n", "no 'single_pass'"),
        (SMALLEST + "epochs: 3\n", "unknown key 'epochs'"),
        (SMALLEST.replace("ran: {}", "ran: {epoch: 3}"), "ran has the unknown key 'epoch'"),
        (SMALLEST.replace("model: {}", "model: {regions: six}"), "must be a list, or one of fixed"),
        (SMALLEST.replace("model: {}", "model: {backbone: alexnet}"), "one of resnet18"),
        (SMALLEST.replace("ran: {}", "ran: {margin: much}"), "ran.margin is 'much'"),
        (SMALLEST + "teacher: {model: {colour: rgb}}\n", "teacher.model.colour differs"),
        (SMALLEST + "trunk: t.safetensors\nstart: default\n", "both trunk and start"),
        (SMALLEST + "teacher: {model: {}, train: {epochs: 0}}\n", "teacher.train.epochs is 0: a teacher must be"),
        (SMALLEST + "teacher: {model: {}, trunk: 5}\n", "teacher.trunk is 5: it must be a path"),
        (SMALLEST.replace("data: d", "data: [a]"), "data is ['a']: it must be a path"),
        (SMALLEST + "labels: 3\n", "labels is 3: it must be a path"),
        (SMALLEST + "trunk: 3\n", "trunk is 3: it must be a path"),
        (SMALLEST + "layout: rafdb\n", "layout is 'rafdb': it must be one of auto, ferplus-parquet"),
        ("data: [", "not YAML"),
        ("- data", "must be a mapping"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", "\\[")):
        read_recipe(recipe(tmp_path, text))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("regions: 3", "model.regions is 3: it must be a list of names"),
        ("regions: [whole, mouth]", "model: region is 'mouth': it must be random_<n> or one of whole"),
        ("regions: [whole, 3]", "model: regions is ['whole', 3]: it must name"),
        ("classes: happiness", "model.classes is 'happiness': it must be a list of names"),
        ("template: [1, 2]", "model.template is [1, 2]: it must be five points"),
        ("template: [[1, 2, 3]]", "model.template is [[1, 2, 3]]: it must be five points"),
        ("template: [[1, 2]]", "five landmarks of x and y"),
        ("input_size: '64'", "input_size is '64': it must be a whole number, 32 to 1024 pixels for resnet18"),
        ("aligned_size: 96.5", "aligned_size is 96.5: it must be a whole number, 32 to 1024 pixels"),
        (
            "backbone: inception_resnet_v1, input_size: 64",
            "input_size is 64: .* 75 to 1024 pixels for inception_resnet_v1",
        ),
        ("std: 0", "std is 0.0: it must be a number, above 0"),
        ("self_attention: 'no'", "self_attention is 'no': it must be true or false"),
    ],
)
def test_mistakes_in_a_model_are_named(tmp_path: Path, model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", "\\[")):
        read_recipe(recipe(tmp_path, SMALLEST.replace("model: {}", f"model: {{{model}}}")))


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ("optimizer: AdamW", "one of sgd, adamw"),
        ("epochs: -1", "a whole number, 0 or more"),
        ("epochs: 2.5", "a whole number, 0 or more"),
        ("epochs: '3'", "a whole number, 0 or more"),
        ("epochs: true", "a whole number, 0 or more"),
        ("epoch_steps: 0", "a whole number, 1 or more"),
        ("batch_size: 0", "a whole number, 2 or more"),
        ("seed: -1", "a whole number, 0 to 4000000"),
        ("learning_rate: 0", "a number, above 0"),
        ("learning_rate: .nan", "a number, above 0"),
        ("momentum: 1", "a number, between 0 and 1"),
        ("weight_decay: -1", "a number, 0 or more"),
        ("warmup: true", "a number, 0 to 1"),
        ("mean_decay: 99.9", "a number, 0 to 1"),
        ("teacher_share: 7", "a number, 0 to 1"),
        ("whole_share: 50", "a number, 0 to 1"),
        ("bf16: 'no'", "true or false"),
    ],
)
def test_mistakes_in_a_stage_are_named(tmp_path: Path, setting: str, allowed: str) -> None:
    name = setting.partition(":")[0]
    with pytest.raises(ValueError, match=f"ran: {name} is .*: it must be {allowed}$"):
        read_recipe(recipe(tmp_path, SMALLEST.replace("ran: {}", f"ran: {{{setting}}}")))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("occlusion_chance: 35", "occlusion_chance is 35.0: it must be a number, 0 to 1"),
        ("rotation_deg: 700", "rotation_deg is 700.0: it must be a number, 0 to 180"),
        ("gamma: -1", "gamma is -1.0: it must be a number, 0 to 3"),
        ("occlusion_sides: 0.5", "occlusion_sides is 0.5: it must be a list of two sides"),
        ("occlusion_sides: [0.5, 0.1]", "occlusion_sides is [0.5, 0.1]: it must be the shortest and the longest side"),
        ("occlusion_sides: [0.1, 0.2, 0.3]", "the shortest and the longest side"),
        ("occlusion_sides: [0.1, wide]", "occlusion_sides is 'wide': it must be a number, 0 to 1"),
    ],
)
def test_mistakes_in_the_augmentation_are_named(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", "\\[")):
        read_recipe(recipe(tmp_path, f"{SMALLEST}augmentation: {{{setting}}}\n"))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00data")
    with pytest.raises(ValueError, match=r"recipe\.yaml is no text in UTF-8"):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml can't be read"):
        read_recipe(tmp_path / "nowhere.yaml")
