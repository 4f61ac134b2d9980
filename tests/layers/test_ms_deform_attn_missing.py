"""Life without the compiled op: why it is missing, and the PyTorch code in its place."""

import importlib
import os
import subprocess
import sys
import textwrap

import pytest

from ddl_d2.layers import ms_deform_attn as module


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'ddl_d2._C'"), "is not compiled"),
        (ImportError("_C.so: undefined symbol: _ZN2at"), "compiled for another PyTorch.*undefined symbol: _ZN2at"),
    ],
)
def test_reason_of_a_missing_extension(monkeypatch, error, reason):
    def refuse(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", refuse)
    text = module._load_extension()
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(text)


def test_other_errors_of_the_extension_are_not_swallowed(monkeypatch):
    def refuse(name):
        raise MemoryError

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MemoryError):
        module._load_extension()


FALLBACK = """
    import logging, sys
    sys.modules["ddl_d2._C"] = None  # makes `import ddl_d2._C` raise ModuleNotFoundError
    import torch
    from ddl_d2.layers import ms_deform_attn as module
    from ddl_d2.layers.ms_deform_attn_layer import MSDeformAttn

    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("ddl_d2").addHandler(handler)

    status = module.extension_status()
    assert not status.available and not status.cuda_built and "not compiled" in status.reason, status
    layer = MSDeformAttn(16, num_levels=2, num_heads=4, num_points=2)
    shapes, starts = torch.tensor([[6, 5], [3, 3]]), torch.tensor([0, 30])
    query = torch.randn(2, 39, 16)
    arguments = (query, torch.rand(2, 39, 2, 2), query, shapes, starts)
    assert not messages, messages
    expected = layer(*arguments)
    expected.sum().backward()
    assert len(messages) == 1 and "slow" in messages[0] and "pip install" in messages[0], messages
    assert layer.sampling_offsets.bias.grad.abs().sum() > 0
    torch.testing.assert_close(torch.export.export(layer, arguments).module()(*arguments), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(*arguments).dtype == torch.bfloat16

    value = torch.randn(1, 39, 2, 3, dtype=torch.float64, requires_grad=True)
    locations = torch.rand(1, 4, 2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 4, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    op = torch.ops.ddl_d2.ms_deform_attn
    assert torch.autograd.gradcheck(op, (value, shapes, starts, locations, weights))
    assert len(messages) == 1, messages
    print("fallback works")
"""


def test_without_extension():
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FALLBACK)],
        capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "fallback works" in result.stdout
