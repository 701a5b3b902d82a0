"""All figures of a model on a data set, as `evaluate --json` prints them and `train` keeps them beside the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ran_model.data import FaceSet, LabelledFaces
from ran_model.datasets import Listing
from ran_model.evaluate import Network, over_expressions, predict_probabilities, score_lists
from ran_model.labels import EXPRESSIONS
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork
from ran_model.occlusion_probe import probe
from ran_model.pretrained import LoadedModel
from ran_model.significance import mcnemar, paired_bootstrap

PROBED_FACES = 500
EVALUATION_FILE = "evaluation.json"  # beside a model that `train` wrote
SAME_ACCURACY = 0.005  # processors round differently, and a few faces are on the edge


def evaluation(
    network: RegionAttentionNetwork,
    data: LabelledFaces,
    *,
    model_id: str,
    twin: SinglePassNetwork | None = None,
    start: LoadedModel | None = None,
    probed: int = PROBED_FACES,
) -> dict[str, Any]:
    """Plain JSON: model, model_id, data, lists, occlusion_probe, and with a single-pass twin single_pass and
    comparison (RAN − single pass on the same faces: McNemar's test, which takes faces as independent, and a paired
    bootstrap interval, over whole groups where faces come in groups); with the model that training began from, `start`
    (its model_id, lists and comparison, of the validation part too). Raises ValueError for a network whose training
    has diverged."""
    result: dict[str, Any] = {
        "model": network.config.name,
        "model_id": model_id,
        "data": {
            "name": data.listing.name,
            "pictures": len(data.listing.items),
            "scored": _scored(data.listing, network.config.classes),
            "found_fraction": round(data.found_fraction, 4),
            "notes": [*data.listing.told, *data.left_out("validation")],
        },
        "lists": {name: scores.to_json() for name, scores in score_lists(network, data).items()},
    }
    if start is not None:
        result["start"] = _against_start(network, start, data)
    clean = clean_faces(data, network.config.classes, probed)
    if len(clean):
        result["occlusion_probe"] = {"ran": _probe(network, clean)}
    if twin is not None:
        result["single_pass"] = {"lists": {name: scores.to_json() for name, scores in score_lists(twin, data).items()}}
        result["comparison"] = {
            name: _compare(_right(network, data, name), _right(twin, data, name), data.groups(name))
            for name in data.lists
            if name in result["lists"]
        }
        if len(clean):
            result["occlusion_probe"]["single_pass"] = _probe(twin, clean)
    return result


def recorded_single_pass(directory: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The twin's figures that `train` kept beside a model, where the twin itself is not there: `single_pass`, marked
    `recorded`, and `comparison`, as in `evaluation`. Empty unless they are of the faces that `result` is of: lists of
    the same names and sizes, which the same model answers as well as it did."""
    try:
        kept = json.loads((directory / EVALUATION_FILE).read_text())
        if kept["model_id"] != result["model_id"] or kept["lists"].keys() != result["lists"].keys():
            return {}
        for name, scores in result["lists"].items():
            before = kept["lists"][name]
            if before["n"] != scores["n"] or abs(before["accuracy"] - scores["accuracy"]) > SAME_ACCURACY:
                return {}
        return {"single_pass": kept["single_pass"] | {"recorded": True}, "comparison": kept["comparison"]}
    except (OSError, ValueError, KeyError):  # none is there, or one of an older form
        return {}


def _scored(listing: Listing, classes: tuple[str, ...]) -> int:
    """How many pictures are in a test list or the validation part."""
    keys = {item.key for item in listing.of("validation", classes)}
    return len(keys.union(*listing.lists.values()))


def clean_faces(data: LabelledFaces, classes: tuple[str, ...], most: int) -> FaceSet:
    """Faces to cover, labelled in the order of `classes`: of the validation part, else of the full list; spread evenly
    over all of it, which may be sorted by class."""
    faces = data.validation()
    if not len(faces) and "full" in data.lists:
        faces = _over_classes(data.test(), classes)
    count = min(most, len(faces))
    return faces.take(torch.arange(count) * len(faces) // max(1, count))


def _over_classes(faces: FaceSet, classes: tuple[str, ...]) -> FaceSet:
    """Faces of a test list, whose labels count over EXPRESSIONS, labelled in the order of `classes`; without the faces
    of other classes."""
    columns = torch.tensor([EXPRESSIONS.index(name) for name in classes])
    faces = faces.take(torch.isin(faces.labels_B, columns).nonzero()[:, 0])
    order = torch.zeros(len(EXPRESSIONS), dtype=torch.int64)
    order[columns] = torch.arange(len(classes))
    return replace(faces, targets_BK=faces.targets_BK[:, columns], labels_B=order[faces.labels_B])


def _probe(network: RegionAttentionNetwork | SinglePassNetwork, faces: FaceSet) -> list[dict[str, Any]]:
    return [
        {
            "cover": result.cover,
            "n": result.n,
            "accuracy": result.accuracy,
            "attention": dict(zip(result.regions, result.attention_R, strict=True)),
        }
        for result in probe(network, faces, batch_size=64)
    ]


def _against_start(network: RegionAttentionNetwork, start: LoadedModel, data: LabelledFaces) -> dict[str, Any]:
    """What training gained on the same faces, or lost."""
    theirs = data.for_model(start.config)
    lists = {name: scores.to_json() for name, scores in score_lists(start.network, theirs).items()}
    comparison = {
        name: _compare(_right(network, data, name), _right(start.network, theirs, name), data.groups(name))
        for name in lists
    }
    return {"model": start.config.name, "model_id": start.model_id, "lists": lists, "comparison": comparison}


def _right(network: Network, data: LabelledFaces, name: str) -> torch.Tensor:
    """Which faces of a test list, or of "validation", it answers as they are labelled: bool (B)."""
    if name == "validation":
        faces = data.validation()
        return predict_probabilities(network, faces).argmax(dim=1) == faces.labels_B
    faces = data.test(name)
    return over_expressions(predict_probabilities(network, faces), network.config).argmax(dim=1) == faces.labels_B


def _compare(right_a_B: torch.Tensor, right_b_B: torch.Tensor, groups_B: torch.Tensor | None) -> dict[str, Any]:
    return {
        "mcnemar": mcnemar(right_a_B, right_b_B).to_json(),
        "bootstrap": paired_bootstrap(right_a_B, right_b_B, groups_B).to_json(),
    }
