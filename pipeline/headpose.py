"""Head pose from five landmarks: a mean three-dimensional face, laid over them by weak perspective.

Five points carry little: enough to sort frontal from turned, no measurement. With the default detector, the pitch of
one portrait in ten sizes, four sharpnesses and three turns in the plane has a standard deviation of 6 degrees and is up
to 14 from its mean, its yaw 3 and 10; a bar over its mouth shifts its pitch by 24. Of FERPlus's test faces, those in no
list of turned ones have a standard deviation of 12 degrees in pitch, nods and expressions included, and half of those
that are listed as turned by more than 45 degrees have a yaw below 20.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

# Mean adult face in millimetres: x to the picture's right, y down, z away from the camera; left eye, right eye, nose
# tip, mouth corners. Proportions of the widely used anthropometric model (eyes 62 mm apart, mouth 50 mm wide, nose tip
# 26 mm before the mouth); the nose's height makes FER2013's median face level.
FACE_MM = np.array(
    [[-31.0, -34.0, 0.0], [31.0, -34.0, 0.0], [0.0, 3.3, -32.0], [-25.0, 32.0, -6.0], [25.0, 32.0, -6.0]],
    dtype=np.float64,
)
# Standard deviations of a face's height against the mean one's, as a share, and of landmarks. A face that a smile or
# its bones make a sixth shorter looks as one that nods by 30 degrees does, up or down as a millimetre of the nose
# decides; a narrow one, as one that is turned. With heights that may differ, the portrait above scatters half as much.
STRETCH_SD = 0.1
LANDMARK_SD_MM = 1.5
REFINEMENTS = 20
SETTLED_RAD = 1e-7  # no angle of any face moves further than this: later steps would change nothing that is kept
DIFFERENCE = 1e-5


def head_pose(landmarks_N52: Float) -> Float:
    """Pitch, roll and yaw of each face in degrees: float32 (N, 3).

    landmarks_N52: pixels. Signs: pitch is positive when the face looks down, yaw when it looks to the right of the
    picture, roll when its head leans clockwise in the picture. All are 0 for the mean face seen from the front. NaN
    where the landmarks coincide.
    Method: scaled orthographic projection of the mean face, whose height may differ at a price; Gauss-Newton steps on
    rotation, scale and height from the upright frontal face, vectorised over faces.
    """
    points = landmarks_N52.astype(np.float64)
    points = points - points.mean(axis=1, keepdims=True)
    face = FACE_MM - FACE_MM.mean(axis=0)
    spread = np.sqrt((points**2).sum(axis=(1, 2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        points = points / spread[:, None, None]
    is_known = np.isfinite(points).all(axis=(1, 2))
    angles = np.full((len(points), 3), np.nan)
    if is_known.any():
        angles[is_known] = _fit(points[is_known], face)
    degrees: Float = np.degrees(angles).astype(np.float32)
    return degrees


def _fit(points_N52: NDArray[np.float64], face_53: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles (N, 3) that best project the centred face onto centred unit-size points."""
    eyes = points_N52[:, 1] - points_N52[:, 0]
    down = points_N52[:, 3:].mean(axis=1) - points_N52[:, :2].mean(axis=1)
    start_scale = np.maximum(np.hypot(*eyes.T) / 62.0, np.hypot(*down.T) / 66.0)
    # parameters: pitch, roll, yaw, log scale, how much longer the face is as a share
    parameters = np.stack(
        [
            np.zeros(len(eyes)),
            np.arctan2(eyes[:, 1], eyes[:, 0]),
            np.zeros(len(eyes)),
            np.log(np.maximum(start_scale, 1e-6)),
            np.zeros(len(eyes)),
        ],
        axis=1,
    )
    price = LANDMARK_SD_MM / np.sqrt((face_53[:, :2] ** 2).sum()) / STRETCH_SD
    damping = 1e-6 * np.eye(5)
    damping[4, 4] += price**2
    limits = np.radians([85.0, 180.0, 85.0])
    nudges_B5 = DIFFERENCE * np.concatenate([np.zeros((1, 5)), np.eye(5), -np.eye(5)])
    for _ in range(REFINEMENTS):
        # one projection of all nudged parameters: few large array operations instead of many small ones
        nudged = (parameters + nudges_B5[:, None]).reshape(-1, 5)
        projected = _project(nudged, face_53).reshape(11, len(eyes), 10)
        residual = points_N52.reshape(-1, 10) - projected[0]
        jacobian = np.moveaxis(projected[1:6] - projected[6:], 0, -1) / (2 * DIFFERENCE)
        gradient = np.einsum("nij,ni->nj", jacobian, residual)
        gradient[:, 4] -= price**2 * parameters[:, 4]
        normal = np.einsum("nij,nik->njk", jacobian, jacobian) + damping
        move = np.linalg.solve(normal, gradient[..., None])[..., 0]
        before = parameters.copy()
        parameters += np.clip(move, -0.35, 0.35)
        parameters[:, [0, 2]] = np.clip(parameters[:, [0, 2]], -limits[[0, 2]], limits[[0, 2]])
        if np.abs(parameters - before).max() < SETTLED_RAD:
            break
    parameters[:, 1] = (parameters[:, 1] + np.pi) % (2 * np.pi) - np.pi
    return parameters[:, :3]


def rotation(
    pitch_N: NDArray[np.float64], roll_N: NDArray[np.float64], yaw_N: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rotation matrices (N, 3, 3) of angles in radians: yaw about the vertical first, then pitch, then roll."""
    zero, one = np.zeros_like(yaw_N), np.ones_like(yaw_N)

    def matrix(*rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(rows, axis=-1).reshape(-1, 3, 3)

    cp, sp, cr, sr, cy, sy = (f(a) for a in (pitch_N, roll_N, yaw_N) for f in (np.cos, np.sin))
    about_y = matrix(cy, zero, -sy, zero, one, zero, sy, zero, cy)
    about_x = matrix(one, zero, zero, zero, cp, -sp, zero, sp, cp)
    about_z = matrix(cr, -sr, zero, sr, cr, zero, zero, zero, one)
    return about_z @ about_x @ about_y


def _project(parameters_N5: NDArray[np.float64], face_53: NDArray[np.float64]) -> NDArray[np.float64]:
    """The face stretched, turned, scaled and seen from far: (N, 5, 2)."""
    stretch_N13 = np.ones((len(parameters_N5), 1, 3))
    stretch_N13[:, 0, 1] += parameters_N5[:, 4]
    turned = np.einsum("nij,npj->npi", rotation(*parameters_N5[:, :3].T), face_53 * stretch_N13)
    projected: NDArray[np.float64] = turned[..., :2] * np.exp(parameters_N5[:, 3])[:, None, None]
    return projected
