"""The files of a model directory and the identity they make. Imports no torch: a driver need not wait for it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from ran_model.config import ModelConfig

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
TWIN_FILE = "single_pass.safetensors"  # only beside a model that `train` wrote


def default_model_dir() -> Path:
    """The model that ships with the product."""
    return Path(__file__).parent / "models" / "default"


def model_id(config: ModelConfig, weights: bytes) -> str:
    """First 12 hex of sha256 over the weights file and the canonical config: what every answer is marked with."""
    return hashlib.sha256(weights + config.identity()).hexdigest()[:12]


def read_model_bytes(directory: str | Path) -> tuple[bytes, bytes]:
    """config.json and model.safetensors of a model directory, as bytes that may travel to other machines.

    Raises ValueError where a file is missing.
    """
    contents = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        path = Path(directory) / name
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise ValueError(
                f"{path} can't be read ({error.strerror}): a model directory holds {CONFIG_FILE} and {WEIGHTS_FILE}"
            ) from error
    return contents[0], contents[1]


def check_model_bytes(config: bytes, weights: bytes) -> str:
    """The model_id of a directory of valid config and whole weights. Raises ValueError that says why."""
    parsed = ModelConfig.from_json(config)
    try:
        safetensors.numpy.load(weights)
    except SafetensorError as error:
        raise ValueError(f"{WEIGHTS_FILE} is damaged or no safetensors file: {error}") from error
    return model_id(parsed, weights)
