"""The op against its reference, on shapes nobody would choose (legend: see ddl_d2/layers/ms_deform_attn.py)."""

import ctypes
import math
import mmap
import sys

import pytest
import torch

from ddl_d2.layers.ms_deform_attn import ms_deform_attn
from ddl_d2.layers.ms_deform_attn_layer import MSDeformAttn
from ddl_d2.layers.ms_deform_attn_reference import ms_deform_attn_reference, ms_deform_attn_reference_backward
from tests.layers.op_inputs import STATUS, inputs, levels, needs_extension, relative_error, run
from tests.ranks import on_ranks

CAPABILITIES = ["portable", "avx2", "avx512"]
RANDOM_SHAPES = 300
_with_cuda = pytest.mark.skipif(
    not (torch.cuda.is_available() and STATUS.cuda_built), reason="needs a GPU and CUDA kernels"
)


def needs_cuda(test):
    return pytest.mark.gpu(_with_cuda(test))


@pytest.fixture
def capability():
    """A function that switches the instruction set of the CPU kernel, or skips; the best is set again at the end."""

    def use(name):
        try:
            torch.ops.ddl_d2._cpu_capability(name)
        except RuntimeError as error:
            pytest.skip(str(error))

    yield use
    if STATUS.available:
        torch.ops.ddl_d2._cpu_capability("best")


# ---------------------------------------------------------------------------------------------------------------------
# Numbers checked by hand


def test_hand_calculated():
    # Level 0 is 2 x 2:  1 2     level 1 is 1 x 1:  10
    #                    3 4
    value = torch.tensor([1.0, 2, 3, 4, 10]).view(1, 5, 1, 1)
    spatial_shapes, starts = levels([(2, 2), (1, 1)])
    locations = torch.tensor(
        [
            # x 0.5 * 2 - 0.5 = 0.5, y the same: in the middle, (1 + 2 + 3 + 4) / 4 = 2.5
            # 0.25 * 2 - 0.5 = 0: on pixel (0, 0), 1
            [[0.5, 0.5], [0.25, 0.25]],
            # level 1: x 0.5 * 1 - 0.5 = 0: on the pixel, 10
            # x 1 * 1 - 0.5 = 0.5, y 0: half of the pixel, half of the zeros outside, 5
            [[0.5, 0.5], [1.0, 0.5]],
        ]
    ).view(1, 1, 1, 2, 2, 2)
    weights = torch.tensor([0.4, 0.1, 0.3, 0.2]).view(1, 1, 1, 2, 2)
    # 0.4 * 2.5 + 0.1 * 1 + 0.3 * 10 + 0.2 * 5 = 1 + 0.1 + 3 + 1 = 5.1
    for function in (ms_deform_attn, ms_deform_attn_reference):
        arguments = [value.clone().requires_grad_(), spatial_shapes, starts, locations, weights.clone()]
        arguments[3] = locations.clone().requires_grad_()
        arguments[4].requires_grad_()
        out = function(*arguments)
        torch.testing.assert_close(out, torch.tensor([[[5.1]]]))
        by_value, by_location, by_weight = torch.autograd.grad(out.sum(), [arguments[0], arguments[3], arguments[4]])
        # A quarter of 0.4 for each pixel of level 0, and 0.1 more for the first; 0.3 + 0.2 / 2 for level 1.
        torch.testing.assert_close(by_value.flatten(), torch.tensor([0.2, 0.1, 0.1, 0.1, 0.4]))
        torch.testing.assert_close(by_weight.flatten(), torch.tensor([2.5, 1, 10, 5]))
        # Middle of level 0: right minus left is ((2 - 1) + (4 - 3)) / 2 = 1 for a pixel, 2 for the width; bottom minus
        # top is 2 for a pixel, 4 for the height; times the weight 0.4: (0.8, 1.6). The last point, between 10 and 0,
        # falls by 10 for a width, times 0.2: -2 in x. (The two points on a pixel's center have a kink there.)
        torch.testing.assert_close(by_location.view(4, 2)[0], torch.tensor([0.8, 1.6]))
        torch.testing.assert_close(by_location.view(4, 2)[3, 0], torch.tensor(-2.0))


def test_nothing_outside_counts():
    # A 1 x 1 level reaches from x = -0.5 to 1.5 (bilinear), not further.
    arguments = inputs([(1, 1)], images=1, queries=1, heads=1, channels=3, points=1)
    for x in (-0.51, 1.5, -1e6, 1e30, math.inf, -math.inf, math.nan):
        arguments[3].copy_(torch.tensor([x, 0.5]))
        for function in (ms_deform_attn, ms_deform_attn_reference):
            for got in run(function, arguments):
                assert torch.equal(got, torch.zeros_like(got)), (x, function)


# ---------------------------------------------------------------------------------------------------------------------
# Against the reference


def between_canaries(tensor, offset):
    """The same numbers inside a buffer that is NaN before and after them; `offset` also breaks the alignment."""
    buffer = torch.full((tensor.numel() + 2 * 64 + offset,), math.nan, dtype=tensor.dtype)
    inner = buffer[64 + offset : 64 + offset + tensor.numel()].view(tensor.shape)
    return inner.copy_(tensor)


def non_contiguous(tensor):
    """The same numbers with the first axes stored last."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def random_case(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    shapes = [(draw(1, 9), draw(1, 9)) for _ in range(draw(1, 5))]
    if seed % 5 == 0:
        shapes[draw(0, len(shapes) - 1)] = (1, 1)
    pixels = sum(h * w for h, w in shapes)
    sizes = {
        "images": 0 if seed % 50 == 7 else draw(1, 3),
        "queries": 0 if seed % 25 == 3 else pixels if seed % 4 == 1 else draw(1, 20),  # S queries: other order
        "heads": draw(1, 5),
        "channels": draw(1, 70),
        "points": draw(1, 6),
    }
    if seed % 20 == 9:  # wide enough for several tiles of queries
        shapes, sizes["channels"] = [(draw(17, 40), draw(17, 40)), *shapes], draw(1, 5)
        sizes["queries"] = sum(h * w for h, w in shapes)
    arguments = list(inputs(shapes, **sizes, seed=seed, spread=[0.4, 0.7, 3.0][seed % 3]))
    if seed % 6 == 2 and arguments[3].numel():  # far outside, and no numbers at all
        strange = torch.tensor([1e3, -1e3, 1e30, -1e300, math.inf, -math.inf, math.nan], dtype=torch.float64)
        flat = arguments[3].view(-1)
        where = torch.randint(0, flat.numel(), (max(1, flat.numel() // 4),), generator=generator)
        flat[where] = strange[torch.randint(0, len(strange), where.shape, generator=generator)]
    for i in (0, 3, 4):
        change = non_contiguous if seed % 3 == 0 else lambda t: between_canaries(t, seed % 2)
        arguments[i] = change(arguments[i])
    return arguments


@needs_extension
@pytest.mark.parametrize("part", range(10))
def test_random_shapes(part, capability):
    """300 random shapes in float64, forward and backward, to 1e-12."""
    known = CAPABILITIES[: CAPABILITIES.index(STATUS.cpu_capability) + 1]
    count = 0
    for seed in range(part, RANDOM_SHAPES, 10):
        arguments = random_case(seed)
        expected = run(ms_deform_attn_reference, arguments)
        capability(known[(seed // 10) % len(known)])
        got = run(ms_deform_attn, arguments)
        for name, a, b in zip(("out", "grad_value", "grad_locations", "grad_weights"), got, expected, strict=True):
            assert relative_error(a, b) <= 1e-12, (seed, name, arguments[0].shape, arguments[3].shape)
        count += 1
    print(f"{count} shapes agree")
    assert count == RANDOM_SHAPES // 10


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 31, 32, 64, 100, 128])
def test_instruction_sets_agree(channels, dtype, capability):
    arguments = list(inputs([(9, 7), (4, 3)], channels=channels, points=11, dtype=torch.float32))
    arguments[0] = arguments[0].to(dtype)
    capability("portable")
    expected = run(ms_deform_attn, arguments)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    for name in CAPABILITIES[1 : CAPABILITIES.index(STATUS.cpu_capability) + 1]:
        capability(name)
        assert torch.ops.ddl_d2._cpu_capability() == name
        for a, b in zip(run(ms_deform_attn, arguments), expected, strict=True):
            assert relative_error(a, b) <= tolerance


@needs_extension
def test_pixels_that_are_not_sampled_are_not_read(capability):
    """NaN in a pixel must not reach queries that do not sample it."""
    arguments = inputs([(6, 6), (3, 3)], images=1, queries=1, heads=1, channels=35, points=1)
    value, _, _, locations, _ = arguments
    locations[..., 0, 0, :] = torch.tensor([0.1, 0.1])  # pixel coordinates 0.1: corners (0, 0) to (1, 1)
    locations[..., 1, 0, :] = torch.tensor([5.0, 5.0])  # outside
    value[:] = math.nan
    for y in (0, 1):
        value[0, 6 * y : 6 * y + 2] = 1.0
    for name in CAPABILITIES[: CAPABILITIES.index(STATUS.cpu_capability) + 1]:
        capability(name)
        out, grad_value, grad_locations, grad_weights = run(ms_deform_attn, arguments)
        for tensor in (out, grad_value, grad_locations, grad_weights):
            assert torch.isfinite(tensor).all()
        # The border: the corners beyond it repeat pixels that are sampled.
        locations[..., 0, 0, :] = torch.tensor([0.0, 0.0])
        assert torch.isfinite(ms_deform_attn(*arguments)).all()
        locations[..., 0, 0, :] = torch.tensor([0.1, 0.1])


def at_the_end_of_memory(tensor):
    """The same numbers where the next byte behind them is one that nobody may read."""
    size = tensor.numel() * tensor.element_size()
    readable = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, readable + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + readable), mmap.PAGESIZE, 0) == 0
    inner = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=readable - size)
    return inner.view(tensor.shape).copy_(tensor)


def reads_to_the_end(rank, name, dtype):
    torch.ops.ddl_d2._cpu_capability(name)
    for points in (1, 3, 4, 7, 16, 17):
        for queries in (1, 5):
            shapes = [(3, 5), (2, 2)]
            arguments = list(inputs(shapes, images=1, queries=queries, channels=5, points=points, dtype=dtype))
            for i in (0, 3, 4):
                arguments[i] = at_the_end_of_memory(arguments[i])
            run(ms_deform_attn, arguments)
    return "done"


@needs_extension
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and protects pages of memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CAPABILITIES)
def test_nothing_is_read_beyond_the_end(name, dtype, capability):
    """Inputs that end where memory does; one read beyond, and the process that does it is killed."""
    capability(name)
    assert on_ranks(reads_to_the_end, 1, name, dtype) == ["done"]


@needs_extension
@pytest.mark.parametrize("where", ["value", "weights", "weights outside"])
def test_nan_is_not_hidden(where):
    value, shapes, starts, locations, weights = inputs([(4, 4)], images=1, queries=1, heads=1, spread=0.3)
    if where == "value":
        value[:] = math.nan
    else:
        weights[0, 0, 0, 0, 0] = math.nan
    if where == "weights outside":
        locations[:] = 7.0
    assert torch.isnan(ms_deform_attn(value, shapes, starts, locations, weights)).all()


@needs_extension
def test_offsets_beyond_32_bits():
    """2.3e9 numbers in one image: 4.6 GB of addresses, of which a few pages are touched."""
    height, width, heads, channels = 3000, 3000, 8, 32
    try:
        value = torch.empty((1, height * width, heads, channels), dtype=torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"no memory: {error}")
    for row in range(height - 2, height):
        value[0, row * width + width - 2 : row * width + width] = 3.0
    shapes, starts = levels([(height, width)])
    locations = torch.full((1, 1, heads, 1, 1, 2), 1 - 0.75 / 3000)
    out = ms_deform_attn(value, shapes, starts, locations, torch.ones(1, 1, heads, 1, 1))
    assert torch.equal(out, torch.full((1, 1, heads * channels), 3.0, dtype=torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fallback_gradients_are_those_of_the_reference(dtype):
    arguments = random_case(2)
    arguments = [a.to(dtype) if a.is_floating_point() else a for a in arguments]
    out, *expected = run(ms_deform_attn_reference, arguments)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for a, b in zip(ms_deform_attn_reference_backward(grad, *arguments), expected, strict=True):
        assert relative_error(a, b) <= tolerance


# ---------------------------------------------------------------------------------------------------------------------
# Types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("point_dtype", [None, torch.float32])
def test_16_bit(dtype, point_dtype):
    arguments = list(inputs([(9, 9), (5, 5)], channels=32, dtype=dtype))
    for i in (3, 4):
        arguments[i] = arguments[i].to(point_dtype or dtype)
    expected = run(ms_deform_attn_reference, [a.float() if a.is_floating_point() else a for a in arguments])
    results = run(ms_deform_attn, arguments)
    kinds = [dtype, dtype, point_dtype or dtype, point_dtype or dtype]
    for got, wanted, kind in zip(results, expected, kinds, strict=True):
        assert got.dtype == kind
        # Sums in float32: only the last rounding is 16-bit (and that of the random output gradient).
        assert relative_error(got.float(), wanted) <= 2**-7


@pytest.mark.parametrize("mixed", [False, True])
def test_autocast(mixed):
    torch.manual_seed(0)
    shapes, starts = levels([(8, 8), (4, 4), (2, 2)])
    layer = MSDeformAttn(32, num_levels=3, num_heads=4, num_points=2)
    query = torch.randn(2, 84, 32)
    points = torch.rand(2, 84, 3, 2)
    expected = layer(query, points, query, shapes, starts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer(query, points, query, shapes, starts)
        if mixed:  # the op itself, with three dtypes at once
            value, _, _, locations, weights = inputs([(8, 8), (4, 4), (2, 2)], dtype=torch.float32)
            out = ms_deform_attn(value.bfloat16(), shapes, starts, locations.double(), weights.half())
            assert out.dtype == torch.bfloat16
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=0.05, rtol=0.05)
    got.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


# ---------------------------------------------------------------------------------------------------------------------
# CUDA


def to_cuda(arguments, levels_too):
    return [a.cuda() if levels_too or a.is_floating_point() else a for a in arguments]


@needs_cuda
@pytest.mark.parametrize("levels_too", [False, True], ids=["levels on the CPU", "levels on the GPU"])
def test_cuda_random_shapes(levels_too):
    for seed in range(RANDOM_SHAPES):
        arguments = random_case(seed)
        got = run(lambda *a: ms_deform_attn(*a), to_cuda(arguments, levels_too))
        for a, b in zip(got, run(ms_deform_attn_reference, arguments), strict=True):
            assert relative_error(a.cpu(), b) <= 1e-12, (seed, arguments[0].shape, arguments[3].shape)


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 8, 12, 16, 32, 33, 64, 128, 264, 520])
def test_cuda_types(dtype, channels):
    arguments = list(inputs([(19, 17), (9, 8), (1, 1)], queries=77, heads=8, channels=channels, points=7, dtype=dtype))
    exact = [a.double() if a.is_floating_point() else a for a in arguments]
    expected = run(ms_deform_attn_reference, exact)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    for got, wanted in zip(run(ms_deform_attn, to_cuda(arguments, False)), expected, strict=True):
        assert relative_error(got.cpu().double(), wanted) <= tolerance


@needs_cuda
def test_cuda_gradcheck_and_opcheck():
    arguments = to_cuda(inputs([(4, 3), (1, 1)], images=1, queries=2, channels=3, points=2), False)
    arguments = [a.requires_grad_() if a.is_floating_point() else a for a in arguments]
    assert torch.autograd.gradcheck(ms_deform_attn, arguments, nondet_tol=1e-12)
    torch.library.opcheck(torch.ops.ddl_d2.ms_deform_attn.default, arguments)


@needs_cuda
def test_cuda_pixels_that_are_not_sampled_are_not_read():
    value, shapes, starts, locations, weights = inputs([(6, 6)], images=1, queries=1, heads=1, channels=32, points=1)
    locations[:] = torch.tensor([5.0, 5.0])
    value[:] = math.nan
    for got in run(ms_deform_attn, to_cuda((value, shapes, starts, locations, weights), False)):
        assert torch.equal(got, torch.zeros_like(got))


@needs_cuda
def test_cuda_autocast():
    shapes, starts = levels([(8, 8), (4, 4)])
    layer = MSDeformAttn(64, num_levels=2).cuda()
    query = torch.randn(2, 80, 64, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = layer(query, torch.rand(2, 80, 2, 2, device="cuda"), query, shapes, starts)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
