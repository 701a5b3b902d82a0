"""A model of random weights, small unless it is told otherwise, where something else than the network is measured."""

from __future__ import annotations

from pathlib import Path


def small_model(folder: Path, *, aligned_size: int, input_size: int = 32, colour: str = "grey") -> Path:
    """Saves it as a model directory."""
    import torch

    from ran_model.config import ModelConfig
    from ran_model.network import RegionAttentionNetwork
    from ran_model.pretrained import save_model

    torch.manual_seed(7)
    config = ModelConfig(name="small", input_size=input_size, colour=colour, aligned_size=aligned_size)
    save_model(folder, config, RegionAttentionNetwork(config), "# A random model for a benchmark\n")
    return folder
