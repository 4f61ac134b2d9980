"""What PyTorch knows of the op (autograd, compile, export, threads), and which inputs it refuses."""

import sys

import pytest
import torch

from ddl_d2.layers.ms_deform_attn import ms_deform_attn
from ddl_d2.layers.ms_deform_attn_layer import MSDeformAttn
from ddl_d2.layers.ms_deform_attn_reference import ms_deform_attn_reference
from tests.layers.op_inputs import inputs, levels, needs_extension, run


def test_gradcheck():
    arguments = inputs([(4, 3), (1, 1)], images=1, queries=2, heads=2, channels=3, points=2)
    arguments = [a.requires_grad_() if a.is_floating_point() else a for a in arguments]
    assert torch.autograd.gradcheck(ms_deform_attn, arguments)


def test_opcheck():
    arguments = inputs([(4, 3), (2, 2)], dtype=torch.float32)
    torch.library.opcheck(torch.ops.ddl_d2.ms_deform_attn.default, arguments)
    trainable = [a.clone().requires_grad_() if a.is_floating_point() else a for a in arguments]
    torch.library.opcheck(torch.ops.ddl_d2.ms_deform_attn.default, trainable)
    out = ms_deform_attn(*arguments)
    torch.library.opcheck(torch.ops.ddl_d2.ms_deform_attn_backward.default, (torch.ones_like(out), *arguments))


def test_second_derivative_is_refused():
    value, *others = inputs([(4, 3)])
    out = ms_deform_attn(value.requires_grad_(), *others)
    grad = torch.autograd.grad(out.square().sum(), value, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no second derivative"):
        grad.sum().backward()


def test_compile_and_export():
    torch.manual_seed(0)
    shapes, starts = levels([(6, 5), (3, 3)])
    layer = MSDeformAttn(16, num_levels=2, num_heads=4, num_points=2).double()
    query = torch.randn(2, 39, 16, dtype=torch.float64)
    arguments = (query, torch.rand(2, 39, 2, 2, dtype=torch.float64), query, shapes, starts)
    expected = layer(*arguments)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    out = compiled(*arguments)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert layer.sampling_offsets.weight.grad.abs().sum() > 0
    exported = torch.export.export(layer, arguments)
    assert "ddl_d2.ms_deform_attn" in exported.graph_module.code
    torch.testing.assert_close(exported.module()(*arguments), expected)


@needs_extension
@pytest.mark.skipif(sys.platform != "linux", reason="other compilers may know no -fopenmp")
def test_runs_on_several_threads():
    assert torch.ops.ddl_d2._cpu_parallel()


@needs_extension
def test_deterministic_for_any_number_of_threads():
    arguments = inputs([(40, 33), (20, 17)], queries=40 * 33 + 20 * 17, heads=3, channels=32, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            results.append(run(ms_deform_attn, arguments))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            assert torch.equal(a, b)


def _replaced(index, change):
    arguments = list(inputs([(4, 3), (2, 2)], dtype=torch.float32))
    arguments[index] = change(arguments[index])
    return arguments


@needs_extension
@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda t: t[:, :-1], "16 pixels together, value has 15|does not fit"),
        (0, lambda t: t[..., None], "value must have 4 axes"),
        (0, lambda t: t[:1], "the same N and H"),
        (0, lambda t: t[:, :, :1], "the same N and H"),
        (0, lambda t: t.double(), "must both have the dtype of value"),
        (0, lambda t: t.long(), "float32, float64, float16 or bfloat16"),
        (1, lambda t: t.int(), "must be int64"),
        (1, lambda t: t[:1], r"spatial_shapes must be \[L, 2\]"),
        (1, lambda t: t - 4, "does not fit into the 16 pixels"),
        (1, lambda t: t * 2**31, "does not fit into the 16 pixels"),
        (2, lambda t: t + 1, r"level_start_index\[0\] is 1"),
        (2, lambda t: t[:1], r"level_start_index must be \[L\]"),
        (3, lambda t: t[..., :1], "the last of size 2"),
        (3, lambda t: t.double(), "must both have the dtype of value"),
        (4, lambda t: t[..., :1], "attention_weights must have the first 5 axes"),
        (4, lambda t: t.half(), "must both have the dtype of value"),
    ],
)
def test_errors_name_what_is_wrong(index, change, message):
    with pytest.raises(RuntimeError, match=message):
        ms_deform_attn(*_replaced(index, change))


@needs_extension
def test_backward_checks_its_gradient():
    arguments = inputs([(4, 3)], dtype=torch.float32)
    with pytest.raises(RuntimeError, match="grad_output must be"):
        torch.ops.ddl_d2.ms_deform_attn_backward(torch.ones(1), *arguments)


def test_reference_checks_levels():
    with pytest.raises(RuntimeError, match="16 pixels together, value has 15"):
        ms_deform_attn_reference(*_replaced(0, lambda t: t[:, :-1]))
    with pytest.raises(RuntimeError, match="do not fit level_start_index"):
        ms_deform_attn_reference(*_replaced(2, lambda t: t + 1))


@needs_extension
def test_unknown_instruction_set():
    with pytest.raises(RuntimeError, match="portable, avx2, avx512 or best"):
        torch.ops.ddl_d2._cpu_capability("mmx")
