"""The RAN stage: faces in, expression probabilities and region attention out. A GPU actor, or a CPU one.

Faces come aligned, and their regions are cut here; or cut already (`pipeline.cut`).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from pipeline.cut import crop_shape
from pipeline.errors import UsageError
from pipeline.pixels import arrays_of, face_pictures, rows_of

CPU_BATCH, GPU_BATCH = 16, 256  # faces per forward pass

Answers = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

#: Columns that this stage adds: per face K probabilities, R self-attention and R final attention weights, flattened.
PREDICTED = pa.schema(
    {
        "probabilities": pa.list_(pa.float32()),
        "self_attention": pa.list_(pa.float32()),
        "attention": pa.list_(pa.float32()),
        "infer_s": pa.float32(),
    }
)


@dataclass(frozen=True)
class ModelBytes:
    """A model directory as bytes. It travels through the object store, so workers need no copy on their disks."""

    config: bytes
    weights: bytes


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """How the RAN actor runs.

    device: "auto" takes the GPU that Ray gave the actor, else the CPU; "cpu"; "cuda".
    batch_size: faces per forward pass; a full GPU wants hundreds, a CPU core is served by 16.
    keep_pixels: pass the aligned faces on to the writer (`--keep-crops`).
    """

    device: str = "auto"
    batch_size: int = 16
    threads: int = 1
    keep_pixels: bool = False


class RanActor:
    """Scores the faces of a block. Segments, also failed ones, pass through in order."""

    def __init__(self, model: Any, config: InferConfig) -> None:
        import torch

        from ran_model.pretrained import load_model_bytes

        torch.set_num_threads(config.threads)
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        stored: ModelBytes = ray.get(model) if isinstance(model, ray.ObjectRef) else model
        self._refused: UsageError | None = None  # raised by the first call: Ray would take it for an actor that died
        try:
            _check_device(device)
            self._model = load_model_bytes(stored.config, stored.weights, device=device)
        except UsageError as error:
            self._refused = error
        except ValueError as error:
            self._refused = UsageError(f"the model can't be used: {str(error).partition(': Error(s)')[0]}")
        self._config = config
        if self._refused is None:
            self._try_out()

    def _try_out(self) -> None:
        """One blank face. An actor that can't infer must not come up: segments without a face would pass through it,
        and each with one would be blamed for what is the machine's fault."""
        model = self._model.config
        face = np.zeros((1, model.aligned_size, model.aligned_size, 3), np.uint8)
        whole = np.tile(np.array([0, 0, 1, 1], np.float32), (1, len(model.regions), 1))
        self._predict(1, lambda begin, end: self._model.predict(face, whole))

    def __call__(self, block: pa.Table) -> pa.Table:
        if self._refused is not None:
            raise self._refused
        counts = [len(faces) for faces in block["faces"]]
        begun = time.perf_counter()
        answers = self._predict(sum(counts), self._asking(block))
        seconds_per_face = (time.perf_counter() - begun) / max(1, sum(counts))
        offsets = np.cumsum([0, *counts])
        for field, answer in zip(PREDICTED, answers, strict=False):
            flat = pa.array(answer.ravel())
            block = block.append_column(
                field, pa.ListArray.from_arrays(pa.array(offsets * answer.shape[1], pa.int32()), flat)
            )
        infer_s = pa.array([count * seconds_per_face for count in counts], pa.float32())
        block = block.append_column(PREDICTED.field("infer_s"), infer_s)
        done_with = {"region_boxes", "crops"} if self._config.keep_pixels else {"region_boxes", "crops", "pixels"}
        return block.drop_columns(sorted(done_with & set(block.column_names)))

    def _asking(self, block: pa.Table) -> Callable[[int, int], Answers]:
        """What answers for faces begin…end of the block, in one forward pass."""
        model = self._model.config
        if "crops" in block.column_names:
            crops = arrays_of(block["crops"], crop_shape(model))
            return lambda begin, end: self._model.predict_crops(rows_of(crops, begin, end))
        pixels = face_pictures(block["pixels"], model.aligned_size)
        boxes = np.array(block["region_boxes"].combine_chunks().flatten(), np.float32).reshape(
            -1, len(model.regions), 4
        )
        return lambda begin, end: self._model.predict(rows_of(pixels, begin, end), boxes[begin:end])

    def _predict(self, total: int, ask: Callable[[int, int], Answers]) -> Answers:
        """Probabilities (N, K), self-attention (N, R) and attention (N, R) of all faces, in microbatches."""
        model = self._model.config
        probabilities = np.empty((total, len(model.classes)), np.float32)
        self_attention = np.empty((total, len(model.regions)), np.float32)
        attention = np.empty((total, len(model.regions)), np.float32)
        if total:
            done, batch_size = 0, self._config.batch_size
            while done < total:
                end = min(done + batch_size, total)
                try:
                    output = ask(done, end)
                except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
                    if "out of memory" not in str(error) or batch_size == 1:
                        raise
                    batch_size //= 2
                    continue
                probabilities[done:end], self_attention[done:end], attention[done:end] = output
                done = end
        return probabilities, self_attention, attention


def _check_device(device: str) -> None:
    """Computes something there. Raises UsageError for a GPU that this machine's torch can't use, and torch's own
    OutOfMemoryError for one that others have filled."""
    import torch

    try:
        torch.zeros(1, device=device).add_(1).item()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"torch {torch.__version__} can't use the GPU of {platform.node()} ({reason}): "
            "use --device cpu, or a torch build and a driver that fit"
        ) from None


def without_predictions(block: pa.Table) -> pa.Table:
    """A block without faces as this stage would have returned it."""
    for field in PREDICTED:
        empty: list[Any] = [0.0 if field.name == "infer_s" else []] * block.num_rows
        block = block.append_column(field, pa.array(empty, field.type))
    return block.drop_columns(["region_boxes"])
