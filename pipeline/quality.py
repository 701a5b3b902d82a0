"""How well a face can be seen: two plain measures of the aligned face, to filter rows by."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def sharpness_brightness(aligned_NHWC: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sharpness and brightness of aligned faces (uint8 HWC RGB): float32 (N, 2).

    sharpness: variance of the Laplacian of the grey face (OpenCV's 3×3 kernel, grey levels 0-255, border left out); low
    is blurred or enlarged. It depends on the aligned size, so compare it within a dataset. Source: Pech-Pacheco et al.,
    ICPR 2000.
    brightness: mean luma (ITU-R BT.601), 0-255.
    """
    measures = np.empty((len(aligned_NHWC), 2), dtype=np.float32)
    for index, face in enumerate(aligned_NHWC):
        grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
        edges = cv2.Laplacian(grey, cv2.CV_32F)[1:-1, 1:-1]
        measures[index] = edges.var(), grey.mean()
    return measures
