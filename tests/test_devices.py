from __future__ import annotations

import pytest
import torch

from vidsynth import devices
from vidsynth.errors import DeviceUnavailable


def test_a_device_that_is_not_there_is_refused_by_name():
    if torch.cuda.is_available():
        with pytest.raises(DeviceUnavailable, match="lower number"):
            devices.choose(f"cuda:{torch.cuda.device_count()}")
    else:
        with pytest.raises(DeviceUnavailable, match="--device cpu"):
            devices.choose("cuda")
    with pytest.raises(DeviceUnavailable, match="'gpu'"):
        devices.choose("gpu")


def test_auto_takes_what_there_is():
    assert devices.choose("auto").type in ("cuda", "mps", "cpu")
    assert devices.choose("cpu") == torch.device("cpu")


def test_precision_is_what_was_asked_for():
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    cpu = torch.device("cpu")
    with devices.autocast(cpu, "fp32"):
        assert layer(x).dtype == torch.float32
    with devices.autocast(cpu, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with devices.autocast(cpu):
        wanted = torch.bfloat16 if devices.has_fast_bf16(cpu) else torch.float32
        assert layer(x).dtype == wanted


def test_free_memory_is_between_nothing_and_what_the_machine_has():
    free = devices.free_memory(torch.device("cpu"))
    assert free is None or 0 < free < 1 << 50


@pytest.mark.parametrize(("cores", "kind", "ahead"), [(2, "cpu", 0), (8, "cpu", 2), (2, "cuda", 2)])
def test_stages_take_turns_only_where_the_generator_needs_every_core(
    monkeypatch, cores, kind, ahead
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert devices.prefetch_beside(torch.device(kind)) == ahead
