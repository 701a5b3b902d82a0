"""Recognised checkpoints become models of ours, with a card that says where they came from."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ran_model.backbones import fit_channels
from ran_model.checkpoints import RAN, SINGLE_PASS, START_ONLY, TRUNK, Checkpoint
from ran_model.config import ModelConfig
from ran_model.labels import EXPRESSIONS
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork, ran_from_single_pass
from ran_model.regions import STRATEGIES

CONVERTED_REGIONS = {"fixed": STRATEGIES["fixed"], "affectnet": STRATEGIES["affectnet"], "whole": ("whole",)}


def model_from_checkpoint(
    checkpoint: Checkpoint,
    *,
    name: str | None = None,
    classes: tuple[str, ...] | None = None,
    attention_norm: str | None = None,
    colour: str | None = None,
    input_size: int = 224,
    mean: float | None = None,
    std: float | None = None,
    regions: str = "fixed",
) -> tuple[ModelConfig, RegionAttentionNetwork]:
    """The configuration and network, in evaluation mode, of a checkpoint.

    A RAN answers as the checkpoint does. A single-pass classifier answers so on the region "whole" alone; on others it
    becomes the mean of its answers over the regions, which is not the checkpoint's own. classes: in the order of the
    logits; needed unless there are eight (then FERPlus' order), and always with AffectNet's regions. attention_norm:
    None is "authors" for a RAN, "paper" else. colour: None follows the first convolution; "grey" of a colour network
    computes what that computes on grey pictures. mean, std: None is 0 and 1 for a RAN, as its authors had; a single
    pass must say. regions: of CONVERTED_REGIONS, "whole" for a single pass only; their order is free, since all share
    one attention. Raises ValueError for what does not fit together.
    """
    path = checkpoint.path
    if checkpoint.kind == TRUNK:
        raise ValueError(f"{path} is a {checkpoint.description}, without a classifier of expressions; {START_ONLY}")
    if checkpoint.kind == SINGLE_PASS and (mean is None or std is None):
        raise ValueError(
            f"{path} does not say how its pictures were normalised: give --mean and --std of pixels in 0-1 "
            "(0 and 1 if they were left in 0-1)"
        )
    if colour == "rgb" and checkpoint.channels == 1:
        raise ValueError(f"{path} takes one channel: its colour can only be grey")
    if regions not in CONVERTED_REGIONS:
        raise ValueError(f"regions is {regions!r}: it must be one of {', '.join(CONVERTED_REGIONS)}")
    if regions == "whole" and checkpoint.kind == RAN:
        raise ValueError(
            f"{path} is a {checkpoint.description}, which answers from several regions: whole is for a single pass"
        )
    config = ModelConfig(
        name=name or f"ran-{checkpoint.backbone}",
        backbone=checkpoint.backbone,
        colour=colour or ("rgb" if checkpoint.channels == 3 else "grey"),
        input_size=input_size,
        regions=CONVERTED_REGIONS[regions],
        classes=_classes(checkpoint, classes, regions),
        mean=0.0 if mean is None else mean,
        std=1.0 if std is None else std,
        attention_norm=attention_norm or ("authors" if checkpoint.kind == RAN else "paper"),
    )
    network = _network(checkpoint, config).eval()
    for tensor_name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not tensor.half().isfinite().all():
            raise ValueError(
                f"{path}: {tensor_name} has values above {torch.finfo(torch.float16).max:.0f}, and models are stored "
                f"in half precision; {START_ONLY}"
            )
    return config, network


def write_card(checkpoint: Checkpoint, config: ModelConfig) -> str:
    """The model card of a converted model, Markdown."""
    attention = "The checkpoint had no attention: the answer is its own, from the whole face alone."
    if checkpoint.kind == RAN:
        attention = f"Its attention is the checkpoint's own, in the {config.attention_norm} form."
    elif len(config.regions) > 1:
        attention = (
            "The checkpoint had no attention: every region weighs the same, and the answer is that of their mean, not\n"
            "the checkpoint's own from the whole face, which `convert --regions whole` gives."
        )
    return f"""# {config.name}

Converted by `ran-pipeline convert` from a checkpoint of other code: a {checkpoint.description}.

| | |
|---|---|
| file | `{checkpoint.path.name}` |
| sha256 | `{checkpoint.sha256}` |
| classes, in the order of its logits | {", ".join(config.classes)} |
| regions | {", ".join(config.regions)} |
| input | {config.input_size} px, {config.colour}, (pixels in 0-1 − {config.mean:g}) / {config.std:g} |

{attention} All regions share one attention, so their order does not matter to the weights, which are stored in half
precision.

The order of the classes, the colour and the normalisation are not in the checkpoint. They are what the conversion was
told or assumed: a wrong order gives wrong names without any error.

## Figures

Unknown here. Figures that were published with the checkpoint hold for its authors' alignment of faces, not for this
one. Measure before use, on labelled faces like yours:

    ran-pipeline evaluate --help

## What it estimates

The expression that an annotator would report seeing in a picture. Not what a person feels. The notes on use in the
card of the model that ships with ran-pipeline hold for this one too.

## Licence

The weights belong to whoever made them. Whether their licence, and that of the pictures they were learnt from, allows
your use is for you to check.
"""


def _classes(checkpoint: Checkpoint, classes: tuple[str, ...] | None, regions: str) -> tuple[str, ...]:
    """The classes in the order of the logits, given or, where that is safe, assumed."""
    count = checkpoint.class_count
    assert count is not None
    if count > len(EXPRESSIONS):
        raise ValueError(
            f"{checkpoint.path} tells {count} classes apart, and there are {len(EXPRESSIONS)} expressions; {START_ONLY}"
        )
    if classes is not None:
        if len(classes) != count:
            raise ValueError(f"{checkpoint.path} has {count} classes, but {len(classes)} are named")
        return classes
    if count == len(EXPRESSIONS) and regions != "affectnet":
        return EXPRESSIONS
    raise ValueError(
        f"{checkpoint.path} has {count} classes, and their order is not in it: name them with --classes, in the order "
        f"of the logits. FERPlus has {','.join(EXPRESSIONS)}; "
        "AffectNet neutral,happiness,sadness,surprise,fear,disgust,anger,contempt; "
        "RAF-DB surprise,fear,disgust,happiness,sadness,anger,neutral"
    )


def _network(checkpoint: Checkpoint, config: ModelConfig) -> RegionAttentionNetwork:
    if checkpoint.kind == SINGLE_PASS:
        single = SinglePassNetwork(config)
        _fill(single, checkpoint, {"classifier": "fc"})
        return ran_from_single_pass(single)
    network = RegionAttentionNetwork(config)
    # Both sides join a region's features first and the mean second, so relation-attention and classifier fit as is.
    layers = {"attention.self_attention": "alpha.0", "attention.relation_attention": "beta.0", "classifier": "fc"}
    _fill(network, checkpoint, layers)
    return network


def _fill(
    network: RegionAttentionNetwork | SinglePassNetwork, checkpoint: Checkpoint, layers: Mapping[str, str]
) -> None:
    """Loads trunk and head. layers: our names of linear layers to the checkpoint's."""
    trunk = fit_channels(checkpoint.trunk, network.trunk.backbone)
    state = {f"trunk.backbone.{name}": tensor for name, tensor in trunk.items()}
    for ours, theirs in layers.items():
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = checkpoint.head[f"{theirs}.{part}"]
    network.load_state_dict(state)
