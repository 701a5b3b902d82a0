"""The whole recipe of the shipped model: align FERPlus, train a single-pass start, then the RAN, evaluate, write it.

`python -m jobs.train_default` (or `make model`). Every step is kept under `--work`, so a second run goes on where the
first one stopped.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import uuid
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import click
import torch
import torch.distributed

from jobs.align_ferplus import ALIGNED_SIZE, align_ferplus
from jobs.model_card import write_card
from ran_model.config import ModelConfig
from ran_model.data import LISTS, FerPlus
from ran_model.evaluate import Scores, attention_when_covered, predict_labels, score
from ran_model.network import RegionAttentionNetwork, SinglePassNetwork, ran_from_single_pass
from ran_model.pretrained import default_model_dir, load_model, save_model
from ran_model.train import TrainConfig, train

log = logging.getLogger(__name__)

MODEL = ModelConfig(name="ran-resnet18-ferplus-64", aligned_size=ALIGNED_SIZE, input_size=64)
SINGLE_PASS = TrainConfig(optimizer="adamw", epochs=10, learning_rate=1e-3, weight_decay=0.05)
RAN = TrainConfig(
    optimizer="adamw",
    epochs=4,
    epoch_steps=98,  # a quarter of the faces, so that a checkpoint comes every few minutes
    batch_size=64,
    learning_rate=2e-4,
    attention_rate=10.0,
    weight_decay=0.05,
    warmup=0.1,
    mean_decay=0.99,
)


@click.command()
@click.option(
    "--table", type=click.Path(path_type=Path), default=Path("../shared/data/ferplus.parquet"), show_default=True
)
@click.option("--work", type=click.Path(path_type=Path), default=Path(".cache/training"), show_default=True)
@click.option(
    "--output", type=click.Path(path_type=Path), default=default_model_dir(), help="Model directory to write."
)
@click.option("--processes", type=int, default=2, show_default=True, help="Without a GPU: one per core to use.")
def main(table: Path, work: Path, output: Path, processes: int) -> None:
    """Train the default model from FERPlus."""
    aligned = work / f"ferplus_{ALIGNED_SIZE}.npz"
    if not aligned.exists():
        _log_to_stderr()
        align_ferplus(table, aligned, threads=processes)
    if torch.cuda.is_available():
        processes = 1
    rendezvous = work / f"rendezvous-{uuid.uuid4().hex}"
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        ranks = [
            pool.submit(_train, rank, processes, rendezvous.resolve(), table, work, output) for rank in range(processes)
        ]
        for done in as_completed(ranks):
            done.result()
    rendezvous.unlink(missing_ok=True)


def _train(rank: int, processes: int, rendezvous: Path, table: Path, work: Path, output: Path) -> None:
    """One of the training processes; the first also evaluates and writes."""
    if rank == 0:
        _log_to_stderr()
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = FerPlus(table, work / f"ferplus_{ALIGNED_SIZE}.npz")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    single = SinglePassNetwork(MODEL).to(device)
    train(single, data.train(), data.validation(), SINGLE_PASS, work / "single_pass")
    network = ran_from_single_pass(single).to(device)
    train(network, data.train(), data.validation(), RAN, work / "ran")
    torch.distributed.destroy_process_group()
    if rank > 0:
        return
    identity = save_model(output, MODEL, network, "# Being evaluated\n")
    stored = load_model(output)  # what ships, half-precision weights included, is what is reported
    figures = {"ran": _on_lists(stored.network, data), "single_pass": _on_lists(single, data)}
    (work / "figures.json").write_text(
        json.dumps(
            {model: {name: asdict(s) for name, s in lists.items()} for model, lists in figures.items()}, indent=1
        )
        + "\n"
    )
    card = write_card(
        figures,
        model_id=identity,
        config=MODEL,
        stages=(SINGLE_PASS, RAN),
        found_fraction=data.found_fraction,
        attention=attention_when_covered(stored.network, data.validation().take(torch.arange(500))),
    )
    save_model(output, MODEL, network, card)
    log.info("model %s is in %s", identity, output)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


def _on_lists(network: RegionAttentionNetwork | SinglePassNetwork, data: FerPlus) -> dict[str, Scores]:
    """Scores on the validation part and on each of the authors' test lists."""
    sets = {"validation": data.validation()} | {name: data.test(name) for name in LISTS}
    return {
        name: score(faces.labels_B, predict_labels(network, faces), len(MODEL.classes)) for name, faces in sets.items()
    }


if __name__ == "__main__":
    main()
