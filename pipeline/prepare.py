"""What has to be right before a run starts: inputs, model and dataset. Nothing is written until all of it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.failures import error_rows
from pipeline.infer import ModelBytes
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog, LogState
from pipeline.ledger.runs import any_run_kept_crops
from pipeline.media.locations import normalise
from pipeline.media.sources import Listing, Source, list_sources, location_of
from pipeline.planning import known_sources
from pipeline.run_config import RunConfig
from pipeline.storage.store import Store, fsspec_options
from pipeline.stored import best_base
from pipeline.terminal import counted
from pipeline.views import find_model
from ran_model.config import ModelConfig
from ran_model.model_files import check_model_bytes, default_model_dir, read_model_bytes


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run's parts, checked.

    base_model_id: the model whose stored faces are scored again (`reprocess`). retry_codes: which failures are tried
    again, all of them if it is empty (`retry`). None for other commands. notes: what somebody should hear at the start.
    """

    listing: Listing
    model: ModelBytes
    model_id: str
    dataset: Dataset
    base_model_id: str | None = None
    retry_codes: tuple[str, ...] | None = None
    keeps_crops: bool = False
    notes: tuple[str, ...] = ()


def prepare(config: RunConfig, extraction: Extraction) -> Prepared:
    """Lists the inputs, loads the model once, and opens or creates the dataset. Raises UsageError."""
    store = Store(config.output, config.storage_options)
    listing = list_inputs(config, store)
    model, model_id = load(config.model)
    dataset = Dataset.open_or_create(store, extraction, root=normalised_root(config))
    return Prepared(listing=listing, model=model, model_id=model_id, dataset=dataset)


def prepare_reprocess(config: RunConfig, base: str | None) -> Prepared:
    """The dataset as input of another model. base: whose faces are taken, a model_id or its beginning; None: the one
    with the most answers (`pipeline.stored.best_base`).

    Raises UsageError, also if the model is the base itself or the dataset has no segments.
    """
    store = Store(config.output, config.storage_options)
    dataset = Dataset.open(store)
    log = CommitLog(store)
    log.refresh()
    state = log.state
    model, model_id = load(config.model)
    chosen = best_base(store, state, model_id) if base is None else find_model(store, state, base)
    if chosen == model_id or (chosen is None and model_id in state.models):
        raise UsageError(f"--model {config.model} is {model_id}, whose rows {store.url} has: give another model")
    if chosen is None:
        raise UsageError(f"{store.url} has no segments yet; `run` makes the first ones")
    return Prepared(
        listing=_stored_listing(dataset, state),
        model=model,
        model_id=model_id,
        dataset=dataset,
        base_model_id=chosen,
    )


def prepare_retry(config: RunConfig, codes: tuple[str, ...]) -> Prepared:
    """The dataset's own sources as inputs. Raises UsageError, also for a model that the dataset has no rows of."""
    store = Store(config.output, config.storage_options)
    dataset = Dataset.open(store)
    log = CommitLog(store)
    log.refresh()
    model, model_id = load(config.model)
    if model_id not in log.state.models:
        known = ", ".join(log.state.models) or "none"
        raise UsageError(f"{store.url} has no rows of --model {config.model} ({model_id}): it has {known}")
    _check_detector(config, dataset)
    return Prepared(
        listing=_stored_listing(dataset, log.state),
        model=model,
        model_id=model_id,
        dataset=dataset,
        retry_codes=codes,
        keeps_crops=bool(log.state.files("crops")) or any_run_kept_crops(store),
        notes=_of_others_errors(store, log.state, model_id),
    )


def _of_others_errors(store: Store, state: LogState, model_id: str) -> tuple[str, ...]:
    """For those who retry one model while it is another that failed."""
    failed = Counter(error_rows(store, state, ["model_id"])["model_id"].to_pylist())
    if failed.pop(model_id, 0) or not failed:
        return ()
    named = ", ".join(f"{other} ({counted(count, 'segment')})" for other, count in failed.items())
    return (f"model {model_id} has no errors, others have: {named}; `retry --model` with the directory of one",)


def _check_detector(config: RunConfig, dataset: Dataset) -> None:
    """Raises UsageError if the run would detect with other weights than those that found the dataset's faces."""
    from pipeline.detect import weights_sha256  # loads onnxruntime, which other drivers don't need

    made = dataset.extraction
    if weights_sha256(made.detector, config.detector_weights) != made.detector_sha256:
        raise UsageError(
            f"the faces of {dataset.store.url} were found with other weights of {made.detector} "
            f"(sha256 {made.detector_sha256}): give --detector-weights with that file"
        )


def _stored_listing(dataset: Dataset, state: LogState) -> Listing:
    """The dataset's own sources."""
    rows = known_sources(dataset.store, state).select(["source_id", "source_uri", "fingerprint", "size_bytes"])
    return Listing(
        sources=[_stored_source(row, dataset.root) for batch in rows.to_batches() for row in batch.to_pylist()]
    )


def _stored_source(row: Mapping[str, Any], root: str | None) -> Source:
    uri = row["source_uri"]
    return Source(
        source_id=row["source_id"],
        uri=uri,
        location=location_of(uri, root),
        fingerprint=row["fingerprint"],
        size_bytes=row["size_bytes"],
    )


def list_inputs(config: RunConfig, store: Store) -> Listing:
    """The sources that this run's inputs name, relative to the dataset's root if it has one."""
    root = normalised_root(config)
    if root is None and Dataset.exists(store):
        root = Dataset.open(store).root
    options = fsspec_options(config.storage_options)
    return list_sources(config.inputs, listed=config.listed, root=root, storage_options=options)


def normalised_root(config: RunConfig) -> str | None:
    """The root as an absolute path or URL, so that it means the same from every folder."""
    return None if config.root is None else normalise(config.root)


def load(model: str) -> tuple[ModelBytes, str]:
    """The model directory's bytes and model_id. Raises UsageError for a model that is broken."""
    try:
        stored = ModelBytes(*read_model_bytes(default_model_dir() if model == "default" else model))
        return stored, check_model_bytes(stored.config, stored.weights)
    except ValueError as error:
        raise UsageError(f"--model {model}: {error}") from None


def model_config(model: ModelBytes) -> ModelConfig:
    """The parsed config.json."""
    return ModelConfig.from_json(model.config)
