"""bfloat16 only where it is faster: emulated, a training step takes ten times as long."""

from __future__ import annotations

import pytest
import torch

from ran_model.precision import uses_bf16
from ran_model.train_config import TrainConfig


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "a newer one"}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "cpu_name": "an older one"}, False),
    ],
)
def test_a_processor_takes_it_where_it_has_instructions(
    instructions: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    cpu = torch.device("cpu")
    assert uses_bf16(TrainConfig().bf16, cpu) is expected
    assert uses_bf16(True, cpu)
    assert not uses_bf16(False, cpu)


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_takes_it_where_it_is_not_emulated(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: has or including_emulation)
    assert uses_bf16(None, torch.device("cuda")) is has
