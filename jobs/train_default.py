"""The whole recipe of the shipped model: align FERPlus, train a single-pass start, then the RAN, evaluate, write it.

`python -m jobs.train_default` (or `make model`). Every step is kept under `--work`, so a second run goes on where the
first one stopped.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import click
import torch

from jobs.align_ferplus import ALIGNED_SIZE, align_ferplus
from jobs.model_card import write_card
from ran_model.config import ModelConfig
from ran_model.data import LISTS, FerPlus
from ran_model.evaluate import Scores, predict_labels, score
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork, ran_from_single_pass
from ran_model.pretrained import default_model_dir, load_model, save_model
from ran_model.train import TrainConfig, train

log = logging.getLogger(__name__)

MODEL = ModelConfig(name="ran-resnet18-ferplus-64", aligned_size=ALIGNED_SIZE, input_size=64)
SINGLE_PASS = TrainConfig(optimizer="adamw", epochs=22, learning_rate=1e-3, weight_decay=0.05)
RAN = TrainConfig(epochs=1, batch_size=64, learning_rate=0.01, attention_rate=5.0, warmup=0.1, mean_decay=0.99)


@click.command()
@click.option(
    "--table", type=click.Path(path_type=Path), default=Path("../shared/data/ferplus.parquet"), show_default=True
)
@click.option("--work", type=click.Path(path_type=Path), default=Path(".cache/training"), show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=default_model_dir(), help="Model directory to write."
)
@click.option("--threads", type=int, default=2, show_default=True)
def main(table: Path, work: Path, output: Path, threads: int) -> None:
    """Train the default model from FERPlus."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    aligned = work / f"ferplus_{ALIGNED_SIZE}.npz"
    if not aligned.exists():
        align_ferplus(table, aligned, threads=threads)
    data = FerPlus(table, aligned)
    single = SinglePassNetwork(MODEL)
    train(single, data.train(), data.validation(), SINGLE_PASS, work / "single_pass")
    network = ran_from_single_pass(single)
    train(network, data.train(), data.validation(), RAN, work / "ran")
    identity = save_model(output, MODEL, network, "# Being evaluated\n")
    stored = load_model(output)  # what ships, half-precision weights included, is what is reported
    figures = {"ran": _on_lists(stored.network, data), "single_pass": _on_lists(single, data)}
    (work / "figures.json").write_text(
        json.dumps(
            {model: {name: asdict(s) for name, s in lists.items()} for model, lists in figures.items()}, indent=1
        )
        + "\n"
    )
    card = write_card(figures, data, model_id=identity, config=MODEL, stages=(SINGLE_PASS, RAN), work=work)
    save_model(output, MODEL, network, card)
    log.info("model %s is in %s", identity, output)


def _on_lists(network: RegionAttentionNetwork | SinglePassNetwork, data: FerPlus) -> dict[str, Scores]:
    """Scores on the validation part and on each of the authors' test lists."""
    sets = {"validation": data.validation()} | {name: data.test(name) for name in LISTS}
    return {
        name: score(faces.labels_B, predict_labels(network, faces), len(MODEL.classes)) for name, faces in sets.items()
    }


if __name__ == "__main__":
    main()
