"""The model card of the default model, written from the figures of its own evaluation."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from ran_model.config import ModelConfig
from ran_model.evaluate import Scores
from ran_model.train import TrainConfig

Figures = Mapping[str, Mapping[str, Scores]]


def write_card(
    figures: Figures,
    *,
    model_id: str,
    config: ModelConfig,
    stages: tuple[TrainConfig, TrainConfig],
    found_fraction: float,
    attention: Mapping[str, list[float]],
) -> str:
    """Markdown. figures: "ran" and "single_pass", each by list: validation, full, occlusion, pose>30, pose>45.

    attention: as `ran_model.evaluate.attention_when_covered` gives it.
    """
    ran, single = figures["ran"], figures["single_pass"]
    confusion = (
        _row(name, [str(count) for count in row])
        for name, row in zip(config.classes, ran["full"].confusion, strict=True)
    )
    return _wrapped(f"""# {config.name}

The region attention network (Wang et al., IEEE TIP 2020, arXiv 1905.04075) that ships with ran-pipeline; model_id
`{model_id}`. A ResNet-18 looks at {len(config.regions)} crops of an aligned face ({", ".join(config.regions)}), each at
{config.input_size}×{config.input_size} pixels in grey, and weighs them. It was trained from random weights on two CPU
cores in about an hour, so that the product works out of the box; it is not the best that this network can do. Its
input is small ({config.input_size} px, where the paper has 224) and it has seen no other faces than FER2013's.

## What it estimates

The expression that an annotator would report *seeing* in a picture, among {len(config.classes)}:
{", ".join(config.classes)}. Not what a person feels.

## Data

FERPlus: FER2013's 48×48 grey pictures with ten votes each. The authors' lists without unknown and not-a-face:
FER2013's Training part (25,045) trained it, its PublicTest part (3,191) is the validation part that settings may be
chosen by, and the authors' test list (3,137, PrivateTest) is for reporting only. Every face went through the product's
own detector and alignment; in {1 - found_fraction:.1%} of the pictures no face was found, and the whole was used.

## Recipe

1. Single pass: {stages[0].epochs} epochs, {stages[0].optimizer}, peak rate {stages[0].learning_rate:g}, weight decay
{stages[0].weight_decay:g}, batch {stages[0].batch_size}; each step sees the whole face or one other region;
cross-entropy with the vote distribution.
2. RAN from that trunk: {stages[1].epochs} × {stages[1].epoch_steps or "all"} steps of {stages[1].batch_size} faces,
{stages[1].optimizer}, peak rate {stages[1].learning_rate:g} (attention × {stages[1].attention_rate:g}); cross-entropy
plus the region-biased loss with margin {stages[1].margin:g}; {config.attention_norm} form of attention.

Mirroring, small affine changes, light, blur and rectangular occlusion in both; the rate rises once and falls as a
cosine; a running mean of the weights is kept. `make model` runs it. The weights are stored in half precision, and
RAN's figures are of the stored weights.

## Figures

Accuracy (mean recall over classes), %, on each of the authors' lists with its own labels. The single pass is stage 1
alone: the same trunk on the whole face only, at a {len(config.regions)}th of the cost. The difference is what
{len(config.regions)} passes and the second stage of training bring together.

| list | faces | RAN | single pass |
|---|---|---|---|
{chr(10).join(_list_row(name, ran[name], single[name]) for name in ran)}

Recall per class on the full test list, %:

| | {" | ".join(config.classes)} |
|---|{"---|" * len(config.classes)}
{_row("faces", [str(sum(row)) for row in ran["full"].confusion])}
{_row("RAN", [_percent(value) for value in ran["full"].recall])}
{_row("single pass", [_percent(value) for value in single["full"].recall])}

What the RAN answers (columns) for each label (rows), full test list:

| | {" | ".join(config.classes)} |
|---|{"---|" * len(config.classes)}
{chr(10).join(confusion)}

For scale: the paper reports 88.55 for its ResNet-18 RAN, started from face recognition, at 224 px.

## What its attention does

Mean attention of each region, %, on 500 validation faces as they are, and with a half of each covered by plain grey:

| covered | {" | ".join(config.regions)} |
|---|{"---|" * len(config.regions)}
{chr(10).join(_row(name, [_percent(weight) for weight in weights]) for name, weights in attention.items())}

Compare a face with other faces of this model, region by region, rather than regions with each other: a region that is
mostly small here is one that the network rarely needs. Attention is a learnt weight, not proof of occlusion.

## Where it fails

- {_weakest(ran["full"], config)} Read probabilities, not only the arg max.
- Turned and covered faces: see the lists above.
- FER2013 is faces found by web search, many posed or acted, labelled by crowd workers. Age, skin colour, glasses,
make-up and head covering are not balanced, and no figures per group exist. Errors will differ between groups.
- Faces below about 40 pixels, strong blur, infrared, drawings and full profiles were not tested.
- Probabilities are not calibrated on your data.

## Use

Meant for: research on how faces appear in media, exploring one's own archives, aggregate statistics with an error
estimate on the data at hand, teaching.

Not for: deciding about a person; inferring emotions at work or in education (in the EU prohibited by Regulation
2024/1689 Art. 5(1)(f), medical and safety reasons aside); lie detection, policing, hiring, insurance, or anything
covert. Where it is used on people in the EU, tell them (Art. 50(3)). It identifies nobody.

## Licences

The code is ran-pipeline's (see LICENSE). The weights were learnt from FER2013 and FERPlus. FERPlus' labels are
published under the MIT licence; FER2013's pictures were gathered from the web for a research challenge, without a
licence for other use. Treat these weights as for research only. No picture is contained in them or shipped.
""")


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


def _list_row(name: str, ran: Scores, single: Scores) -> str:
    cells = [f"{_percent(s.accuracy)} ({_percent(s.mean_recall)})" for s in (ran, single)]
    return f"| {name} | {ran.faces} | {' | '.join(cells)} |"


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _weakest(scores: Scores, config: ModelConfig) -> str:
    """The classes that it finds less than half of the time, worst first."""
    known = [(value, name) for value, name in zip(scores.recall, config.classes, strict=True) if value is not None]
    weak = [f"{name} ({_percent(value)} %)" for value, name in sorted(known) if value < 0.5]
    return (
        f"It misses more than half of: {', '.join(weak)}." if weak else "No class is found less than half of the time."
    )
