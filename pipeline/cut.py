"""The step between aligning and the network where regions are cut on the decoding actors' cores: `--crop-on cpu`.

Otherwise the RAN actor cuts them on its own device, from aligned faces. Which of the two are fewer bytes depends on the
model: of 224 px in colour a face is 150 kB and its six regions are 903 kB; of the default model 28 kB and 25 kB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.pixels import column_of, face_pictures, rows_of
from ran_model.config import ModelConfig

FACES_AT_ONCE = 64


class RegionCutter:
    """Puts `crops` in place of the decode stage's `pixels` and `region_boxes`: R·C·I·I bytes per face, in the model's
    colour and size. Rounded to whole bytes: answers differ by up to a hundredth or two from those without this step.

    keep_pixels: aligned faces travel on beside them, for `--keep-crops`.
    """

    def __init__(self, model_config: bytes, keep_pixels: bool = False) -> None:
        import torch

        torch.set_num_threads(1)
        self._model = ModelConfig.from_json(model_config)
        self._keep_pixels = keep_pixels

    def __call__(self, block: pa.Table) -> pa.Table:
        faces = face_pictures(block["pixels"], self._model.aligned_size)
        boxes = np.array(block["region_boxes"].combine_chunks().flatten(), np.float32)
        crops = self._cut(faces, boxes.reshape(-1, len(self._model.regions), 4))
        column = column_of(crops, [len(row) for row in block["faces"]])
        done_with = ["region_boxes"] if self._keep_pixels else ["region_boxes", "pixels"]
        return block.append_column("crops", column).drop_columns(done_with)

    def _cut(self, faces: Sequence[NDArray[np.uint8]], boxes_NR4: NDArray[np.float32]) -> NDArray[np.uint8]:
        import torch

        from ran_model.crops import crop_pixels

        model = self._model
        crops_NRCII = np.empty((len(boxes_NR4), *crop_shape(model)), np.uint8)
        for begin in range(0, len(boxes_NR4), FACES_AT_ONCE):
            end = min(begin + FACES_AT_ONCE, len(boxes_NR4))
            faces_BCSS = torch.from_numpy(rows_of(faces, begin, end)).permute(0, 3, 1, 2)
            boxes_BR4 = torch.from_numpy(boxes_NR4[begin:end])
            crops_NRCII[begin:end] = crop_pixels(faces_BCSS, boxes_BR4, model.input_size, colour=model.colour).numpy()
        return crops_NRCII


def crop_shape(model: ModelConfig) -> tuple[int, int, int, int]:
    """(R, C, I, I): a face's entry in the column `crops`."""
    return len(model.regions), model.channels, model.input_size, model.input_size


def pixels_grow(model_config: bytes) -> float:
    """How many times as many bytes as an aligned face its regions are; 1 where they are fewer."""
    model = ModelConfig.from_json(model_config)
    return max(1.0, math.prod(crop_shape(model)) / (model.aligned_size**2 * 3))
