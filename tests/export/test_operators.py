"""The operator in the words of ONNX gives what the operator gives, at sizes that the exporter did not see."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn
from torch.export import Dim

from ddl_d2.export.operators import TRANSLATIONS
from ddl_d2.layers.ms_deform_attn import ms_deform_attn


class _Attention(nn.Module):
    def forward(self, value, shapes, starts, locations, weights):
        return ms_deform_attn(value, shapes, starts, locations, weights)


def _inputs(images, sizes, queries, heads=2, channels=3, points=2):
    torch.manual_seed(queries)
    counts = [height * width for height, width in sizes]
    starts = torch.tensor([sum(counts[:i]) for i in range(len(counts))])
    locations = 1.6 * torch.rand(images, queries, heads, len(sizes), points, 2) - 0.3
    locations[0, 0] = 1e9  # far outside: samples zeros
    weights = torch.rand(images, queries, heads, len(sizes), points)
    return torch.randn(images, sum(counts), heads, channels), torch.tensor(sizes), starts, locations, weights


def test_deformable_attention(tmp_path):
    images, pixels, queries = Dim("images"), Dim("pixels"), Dim("queries")
    exported = torch.onnx.export(
        _Attention(),
        _inputs(2, [(4, 5), (2, 3)], 4),
        dynamic_shapes=({0: images, 1: pixels}, None, None, {0: images, 1: queries}, {0: images, 1: queries}),
        custom_translation_table=TRANSLATIONS,
        opset_version=20,
        dynamo=True,
        verbose=False,
    )
    exported.save(tmp_path / "op.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "op.onnx")
    names = [one.name for one in session.get_inputs()]
    for inputs in (_inputs(3, [(7, 2), (3, 9)], 5), _inputs(1, [(1, 1), (6, 4)], 8)):
        found = session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})[0]
        np.testing.assert_allclose(found, ms_deform_attn(*inputs).numpy(), atol=1e-5)
