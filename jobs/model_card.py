"""The model card that `train` writes: what a model is, what it was trained on, and its figures."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from jobs.intervals import about_few, percent_difference
from jobs.text import markdown_row, points
from pipeline.terminal import counted
from ran_model.augment import Augmentation
from ran_model.datasets import Listing
from ran_model.recipe import Recipe
from ran_model.train_config import TrainConfig

FER2013 = """FER2013 is faces found by web search, many posed or acted, labelled by crowd workers; age, skin colour,
glasses, make-up and head covering are not balanced, and no figures per group exist, so errors will differ between
groups."""
PAPER = """the paper reports 88.55 for its ResNet-18 RAN, started from face recognition, at 224 px"""
FERPLUS = f"""FERPlus: FER2013's 48×48 grey pictures with ten votes each, in the RAN authors' lists. FER2013's
Training part trains, its PublicTest part is the validation part that settings may be chosen by, and the authors' test
list (PrivateTest) is for reporting only. {FER2013} For scale: {PAPER}."""
FERPLUS_BY_MAJORITY = f"""FERPlus: FER2013's 48×48 grey pictures with ten votes each. A picture's label is what has
more than half of its votes, single votes left out, as FERPlus' own code has it; pictures without such a majority, or
where it is unknown or not-a-face, are left out. These are not the RAN authors' pictures and labels, so figures on the
full list are not the paper's task ({PAPER}); lists of covered or turned faces, where there are any, are the authors'.
FER2013's Training part trains, its PublicTest part is the validation part that settings may be chosen by, and
PrivateTest is for reporting only. {FER2013}"""
FERPLUS_LICENCES = """FERPlus' labels are published under the MIT licence; FER2013's pictures were gathered from the web
for a research challenge, without a licence for other use. A teacher, where the recipe names one, started from FaceNet's
weights (MIT licence), which were learnt from CASIA-WebFace, pictures for research. Treat these weights as for research
only. No picture is contained in them or shipped."""
#: What is known of a data set beyond its files, by the layout of its listing.
ABOUT = {"ferplus-parquet": FERPLUS, "fer2013-csv": FERPLUS_BY_MAJORITY}
LICENCES = {"ferplus-parquet": FERPLUS_LICENCES, "fer2013-csv": FERPLUS_LICENCES}


def write_card(evaluation: dict[str, Any], recipe: Recipe, listing: Listing) -> str:
    """Markdown. evaluation: as `jobs.evaluation.evaluation` gives it, with the single-pass twin."""
    config, ran, single = recipe.model, evaluation["lists"], evaluation["single_pass"]["lists"]
    trained = {split: len(listing.of(split, config.classes)) for split in ("train", "validation")}
    counts = ", ".join(f"{count:,} {split}" for split, count in (trained | {"test": len(listing.of("test"))}).items())
    main = ran.get("full") or next(iter(ran.values()))
    twin = single.get("full") or next(iter(single.values()))
    names = list(main["per_class"])
    recalls = [[each["per_class"][name]["recall"] for name in names] for each in (main, twin)]
    confusion = (markdown_row([name, *map(str, row)]) for name, row in zip(names, main["confusion"], strict=True))
    grouped = _grouped_text(evaluation["comparison"])
    probes = evaluation.get("occlusion_probe", {"ran": [], "single_pass": []})
    return _wrapped(f"""# {config.name}

A region attention network (Wang et al., IEEE TIP 2020, arXiv 1905.04075); model_id `{evaluation["model_id"]}`. A
{config.backbone} looks at {len(config.regions)} crops of an aligned face ({", ".join(config.regions)}), each at
{config.input_size}×{config.input_size} pixels in {config.colour}, and weighs them.

## What it estimates

The expression that an annotator would report *seeing* in a picture, among {len(config.classes)}:
{", ".join(config.classes)}. Not what a person feels.

## Data

{listing.name}: {counts} pictures. Every one went through the product's own detector and alignment; in
{1 - evaluation["data"]["found_fraction"]:.1%} of them no face was found, and the whole picture was used.

{ABOUT.get(listing.layout, "")}

## Recipe

{_recipe_text(recipe, listing)}

The recipe with every setting lies beside the weights (recipe.yaml), and so do all figures (evaluation.json). The
weights are stored in half precision, and RAN's figures are of the stored weights.

## Figures

Accuracy (mean recall over classes), %, on each list with its own labels; ECE is the expected calibration error of RAN's
confidence. The single pass is RAN's twin: from the same start, trained for as many steps by the same settings and
targets, but it looks at the whole face only, at 1/{len(config.regions)} of the cost. `train` writes it beside the
weights (single_pass.safetensors); the package of ran-pipeline has its default model without it. The difference has a
95 % interval from a paired bootstrap over faces{grouped}

| list | faces | RAN | single pass | difference | ECE |
|---|---|---|---|---|---|
{chr(10).join(_list_row(name, ran[name], single[name], evaluation["comparison"].get(name)) for name in ran)}

{_copies_text(ran)}

{_start_text(evaluation)}

Recall per class on the {"full test" if "full" in ran else "first"} list, %:

| | {" | ".join(names)} |
|---|{"---|" * len(names)}
{markdown_row(["faces", *(str(main["per_class"][name]["n"]) for name in names)])}
{markdown_row(["RAN", *map(points, recalls[0])])}
{markdown_row(["single pass", *map(points, recalls[1])])}

What the RAN answers (columns) for each label (rows):

| | {" | ".join(names)} |
|---|{"---|" * len(names)}
{chr(10).join(confusion)}

## When a part is covered

Accuracy, and mean attention of each region, %, on {probes["ran"][0]["n"] if probes["ran"] else 0} validation faces as
they are and with a part of each covered by plain grey:

| covered | RAN | single pass | {" | ".join(config.regions)} |
|---|---|---|{"---|" * len(config.regions)}
{chr(10).join(_probe_row(a, b) for a, b in zip(probes["ran"], probes["single_pass"], strict=True))}

Compare a face with other faces of this model, region by region, rather than regions with each other: a region that is
mostly small here is one that the network rarely needs. Attention is a learnt weight, not proof of occlusion.

## Where it fails

- {_weakest(dict(zip(names, recalls[0], strict=True)))} Read probabilities, not only the arg max.
- Turned and covered faces: see the lists above.
- Faces below about 40 pixels, strong blur, infrared, drawings and full profiles were not tested.
- Calibration was measured on these lists, not on your data.

## Use

Meant for: research on how faces appear in media, exploring one's own archives, aggregate statistics with an error
estimate on the data at hand, teaching.

Not for: deciding about a person; inferring emotions at work or in education (in the EU prohibited by Regulation
2024/1689 Art. 5(1)(f), medical and safety reasons aside); lie detection, policing, hiring, insurance, or anything
covert. Where it is used on people in the EU, tell them (Art. 50(3)). It identifies nobody.

## Licences

The code is ran-pipeline's (see LICENSE). The weights were learnt from {listing.name}, whose terms apply to them.
{LICENCES.get(listing.layout, "")}
""")


def _recipe_text(recipe: Recipe, listing: Listing) -> str:
    targets = "vote distribution" if any(item.votes is not None for item in listing.items) else "label"
    stages = []
    if recipe.teacher is not None:
        model = recipe.teacher.model
        start = "a face-recognition network" if recipe.teacher.trunk is not None else "random weights"
        stages.append(
            f"Teacher: {model.backbone} at {model.input_size} px on the whole face or one other region, from {start}; "
            f"{_stage_text(recipe.teacher.train)}. It does not ship."
        )
    start = "a given trunk" if recipe.trunk is not None else "random weights"
    if recipe.start is not None:
        start = f"the model in {recipe.start.name}"
    taught = ""
    if recipe.teacher is not None:
        taught = f"; {recipe.single_pass.teacher_share:.0%} of each target is the teacher's answer to the same picture"
    stages.append(
        f"Single pass, from {start}: {_stage_text(recipe.single_pass)}; each step sees the whole face or one other "
        f"region; cross-entropy with the {targets}{taught}."
    )
    stages.append(
        f"RAN from that trunk: {_stage_text(recipe.ran)} (attention × {recipe.ran.attention_rate:g}); cross-entropy "
        f"plus {recipe.ran.region_bias:g} × the region-biased loss with margin {recipe.ran.margin:g}; "
        f"{recipe.model.attention_norm} form of attention."
    )
    stages.append("Its twin, from the same single pass: as many steps of the same batches, on the whole face alone.")
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(stages, 1))
    return (
        f"{listed}\n\n{_augmentation_text(recipe.augmentation)} The rate rises once and falls as a cosine; a running "
        "mean of the weights is kept."
    )


def _augmentation_text(changes: Augmentation) -> str:
    """What faces are changed by in all stages, leaving out what a recipe switches off."""
    chances = {
        "blur": changes.blur_chance,
        "down-scaling": changes.downscale_chance,
        "a rectangle over a part": changes.occlusion_chance,
    }
    moved = changes.rotation_deg or changes.scale or changes.shift or changes.shear
    lit = changes.contrast or changes.brightness or changes.gamma
    parts = ["mirroring", *(["small affine changes"] if moved else []), *(["light"] if lit else [])]
    parts += [f"{name} ({chance:.0%} of faces)" for name, chance in chances.items() if chance]
    return f"Changes to the faces in all stages: {', '.join(parts)}."


def _stage_text(stage: TrainConfig) -> str:
    if stage.epochs == 0:
        return "not trained further"
    steps = counted(stage.epochs, "epoch") + (f" of {counted(stage.epoch_steps, 'step')}" if stage.epoch_steps else "")
    return (
        f"{steps} of batches of {stage.batch_size}, {stage.optimizer}, peak rate {stage.learning_rate:g}, weight decay "
        f"{stage.weight_decay:g}"
    )


def _wrapped(markdown: str) -> str:
    """Paragraphs and list items filled to 118 characters; tables and headings as they are."""
    blocks = []
    for block in markdown.strip().split("\n\n"):
        if block.startswith(("#", "|")):
            blocks.append(block)
            continue
        items = re.split(r"\n(?=- |\d\. )", block)
        filled = [textwrap.fill(" ".join(item.split()), 118, subsequent_indent=_hanging(item)) for item in items]
        blocks.append("\n".join(filled))
    return "\n\n".join(blocks) + "\n"


def _hanging(item: str) -> str:
    mark = re.match(r"- |\d\. ", item)
    return " " * len(mark.group()) if mark else ""


def _list_row(name: str, ran: dict[str, Any], single: dict[str, Any], comparison: dict[str, Any] | None) -> str:
    cells = [f"{points(s['accuracy'])} ({points(s['macro_recall'])})" for s in (ran, single)]
    difference = "–"
    if comparison is not None:
        difference = percent_difference(comparison["bootstrap"])
    return markdown_row([name, str(ran["n"]), *cells, difference, f"{ran['ece']:.3f}"])


def _grouped_text(comparison: dict[str, Any]) -> str:
    """The end of the sentence on the bootstrap, and what to think of it where faces come in groups."""
    groups = {name: each["bootstrap"]["groups"] for name, each in comparison.items() if each["bootstrap"].get("groups")}
    if not groups:
        return "."
    listed = ", ".join(f"{name} {count:,}" for name, count in groups.items())
    few = about_few(min(groups.values()))
    return f" that resamples whole sources, whose faces are not independent ({listed}). {few}"


def _copies_text(lists: dict[str, Any]) -> str:
    parts = {name: scores["without_copies"] for name, scores in lists.items() if scores["without_copies"]}
    if not parts:
        return ""
    listed = ", ".join(f"{name} {points(part['accuracy'])} ({part['n']:,} faces)" for name, part in parts.items())
    return f"Without the test faces whose very picture the training part has too, RAN's accuracy is: {listed}."


def _start_text(evaluation: dict[str, Any]) -> str:
    """What the model that training began from had on the same lists."""
    start = evaluation.get("start")
    if start is None:
        return ""
    listed = ", ".join(
        f"{name} {points(scores['accuracy'])}, {percent_difference(start['comparison'][name]['bootstrap'])}"
        for name, scores in start["lists"].items()
    )
    return f"The model that training began from, `{start['model_id']}`, and what was gained over it: {listed}."


def _probe_row(ran: dict[str, Any], single: dict[str, Any]) -> str:
    shares = (ran["accuracy"], single["accuracy"], *ran["attention"].values())
    return markdown_row([ran["cover"], *map(points, shares)])


def _weakest(recall: dict[str, float | None]) -> str:
    """The classes that it finds less than half of the time, worst first."""
    weak = sorted((value, name) for name, value in recall.items() if value is not None and value < 0.5)
    if not weak:
        return "No class is found less than half of the time."
    return f"It misses more than half of: {', '.join(f'{name} ({points(value)} %)' for value, name in weak)}."
