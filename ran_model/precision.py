"""Which precision a device computes fast in."""

from __future__ import annotations

from typing import Any

import torch


def uses_bf16(wanted: bool | None, device: torch.device) -> bool:
    """Whether to compute in bfloat16 (autocast): as wanted, or, for None, where the device has instructions for it.

    A processor that has none emulates them: a training step of ResNet-18 took ten times as long as in float32.
    """
    if wanted is not None:
        return wanted
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    instructions: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # of torch before 2.11 none are known
    return device.type == "cpu" and any(has for name, has in instructions.items() if "bf16" in name)
