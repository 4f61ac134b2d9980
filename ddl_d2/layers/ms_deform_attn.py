"""Multi-scale deformable attention: the op, its slow reference, and the layer around it.

Source: Zhu et al., "Deformable DETR", arXiv 2010.04159, eq. 3.

Shape legend: N images, S pixels of all levels together, H heads, D channels of a head, C = H * D channels, Q queries,
L levels, P points of a level. Locations are (x, y) in [0, 1] over a level; sizes are (height, width) in pixels.

The operator `torch.ops.ddl_d2.ms_deform_attn` exists once this module is imported, compiled or not. It has fake,
autograd and autocast registrations, so that torch.compile, torch.export and torch.autocast know it. Where its compiled
part is missing (`extension_status()` says why), PyTorch code takes its place: same results, slower.
"""

import importlib
import logging
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ExtensionStatus", "MSDeformAttn", "extension_status", "ms_deform_attn", "ms_deform_attn_reference"]

logger = logging.getLogger("ddl_d2")

_ARGUMENTS = (
    "Tensor value, Tensor spatial_shapes, Tensor level_start_index, Tensor sampling_locations, Tensor attention_weights"
)
_BUILD_COMMAND = "pip install --no-build-isolation --no-deps -e . (needs a C++ compiler; DDL_D2_CUDA=1 for CUDA)"


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples: out[n, q, h] = sum over l, p of weight * value_l[n, h](location).

    Equal to `grid_sample(align_corners=False, padding_mode="zeros")` on each level: pixel centers lie at
    (i + 0.5) / size, and pixels outside count as 0. A location that is NaN or infinite is outside. Values, and
    weights of any point, that are NaN make the result NaN.

    Args:
        value: [N, S, H, D], the levels one after another, each row by row; float32, float64, float16 or bfloat16.
        spatial_shapes: [L, 2] int64, (height, width) of each level. On the CPU (best, also for a `value` on a GPU:
            it is checked, and nothing waits for the GPU) or on the device of `value`.
        level_start_index: [L] int64, the first pixel of each level in S. Same device as `spatial_shapes`.
        sampling_locations: [N, Q, H, L, P, 2], (x, y), dtype of `value`, or float32 if that has 16 bits.
        attention_weights: [N, Q, H, L, P], dtype of `sampling_locations`.

    Returns:
        [N, Q, H * D] in the dtype of `value`. Under torch.autocast it runs in the dtype of `value`, with locations and
        weights in float32 if that has 16 bits. Sums are in float32 (float64 for float64). Differentiable once, by
        value, locations and weights; the gradient is deterministic on CPUs and not on GPUs (atomic additions).

    Raises:
        RuntimeError: shapes, dtypes, devices or levels do not fit together.
    """
    return torch.ops.ddl_d2.ms_deform_attn(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )


class ExtensionStatus(NamedTuple):
    """What `ddl_d2._C` offers. `reason` is empty if it could be loaded."""

    available: bool
    cuda_built: bool
    cpu_capability: str  # "avx512", "avx2", "portable"; "" if not available
    reason: str


def extension_status() -> ExtensionStatus:
    """Whether the compiled op is in use, with CUDA or not, and why not."""
    if _LOAD_ERROR:
        return ExtensionStatus(False, False, "", _LOAD_ERROR)
    ops = torch.ops.ddl_d2
    return ExtensionStatus(True, ops._cuda_built(), ops._cpu_capability(), "")


# ---------------------------------------------------------------------------------------------------------------------
# Reference


def _levels(value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor) -> list[tuple[int, int, int]]:
    """(height, width, start) of each level."""
    shapes = spatial_shapes.tolist()
    starts = level_start_index.tolist()
    levels, total = [], 0
    for (height, width), start in zip(shapes, starts, strict=True):
        if height <= 0 or width <= 0 or start != total:
            raise RuntimeError(f"ms_deform_attn: spatial_shapes {shapes} do not fit level_start_index {starts}")
        levels.append((height, width, start))
        total += height * width
    if total != value.shape[1]:
        raise RuntimeError(
            f"ms_deform_attn: the levels of spatial_shapes {shapes} have {total} pixels together, "
            f"value has {value.shape[1]}"
        )
    return levels


def _math_dtype(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _level_image(value: Tensor, height: int, width: int, start: int) -> Tensor:
    """The pixels of one level, [N, S, H, D] -> [N * H, D, height, width]."""
    pixels = value[:, start : start + height * width]
    return pixels.permute(0, 2, 3, 1).reshape(-1, value.shape[3], height, width)


def _level_grid(locations: Tensor, level: int) -> Tensor:
    """Locations in one level as grid_sample wants them, [N, Q, H, L, P, 2] -> [N * H, Q, P, 2] in [-1, 1].

    Locations outside [-2, 3] are moved to its border, NaN too: everything there samples only zeros, and grid_sample
    leaves open what it does with NaN and with numbers too large for an integer.
    """
    locations = locations[:, :, :, level].transpose(1, 2).flatten(0, 1)
    return 2 * locations.nan_to_num(nan=-2.0).clamp(-2, 3) - 1


def _sample(image: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """`ms_deform_attn` as plain PyTorch: the yardstick of the tests. Same arguments, any floating dtype, any device.

    Differentiable by PyTorch itself. Needs memory for every sample: N * H * D * Q * L * P numbers.
    """
    images, queries, heads, _, points, _ = sampling_locations.shape
    channels = value.shape[3]
    dtype = _math_dtype(value)
    out = value.new_zeros((images * heads, channels, queries), dtype=dtype)
    if out.numel() and points:
        weights = attention_weights.to(dtype).transpose(1, 2).flatten(0, 1)  # [N * H, Q, L, P]
        for level, (height, width, start) in enumerate(_levels(value, spatial_shapes, level_start_index)):
            image = _level_image(value.to(dtype), height, width, start)
            samples = _sample(image, _level_grid(sampling_locations.to(dtype), level))  # [N * H, D, Q, P]
            out = out + (samples * weights[:, None, :, level]).sum(-1)
    out = out.view(images, heads * channels, queries).transpose(1, 2)
    return out.contiguous().to(value.dtype)


def _reference_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients, where autograd is not at hand: inside an operator."""
    images, queries, heads, _, points, _ = sampling_locations.shape
    channels = value.shape[3]
    dtype = _math_dtype(value)
    grad_value = torch.zeros(value.shape, dtype=dtype, device=value.device)
    grad_locations = torch.zeros(sampling_locations.shape, dtype=dtype, device=value.device)
    grad_weights = torch.zeros(attention_weights.shape, dtype=dtype, device=value.device)
    if grad_output.numel() and points:
        grad = grad_output.to(dtype).view(images, queries, heads, channels).permute(0, 2, 3, 1).flatten(0, 1)
        for level, (height, width, start) in enumerate(_levels(value, spatial_shapes, level_start_index)):
            image = _level_image(value.to(dtype), height, width, start).contiguous()
            locations = sampling_locations.to(dtype)
            grid = _level_grid(locations, level).contiguous()
            weights = attention_weights[:, :, :, level].to(dtype).transpose(1, 2).flatten(0, 1)  # [N * H, Q, P]
            by_weight = (_sample(image, grid) * grad[..., None]).sum(1)
            by_image, by_grid = torch.ops.aten.grid_sampler_2d_backward(
                grad[..., None] * weights[:, None], image, grid, 0, 0, False, [True, True]
            )
            pixels = by_image.view(images, heads, channels, height * width).permute(0, 3, 1, 2)
            grad_value[:, start : start + height * width] = pixels
            by_location = 2 * by_grid.view(images, heads, queries, points, 2).transpose(1, 2)
            moved = ~((locations[:, :, :, level] >= -2) & (locations[:, :, :, level] <= 3))
            grad_locations[:, :, :, level] = by_location.masked_fill(moved, 0)
            grad_weights[:, :, :, level] = by_weight.view(images, heads, queries, points).transpose(1, 2)
    return (
        grad_value.to(value.dtype),
        grad_locations.to(sampling_locations.dtype),
        grad_weights.to(attention_weights.dtype),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Registration


def _load_extension() -> str:
    """Load `ddl_d2._C`, which registers the operator. Returns why that did not work, or ""."""
    try:
        importlib.import_module("ddl_d2._C")
    except ModuleNotFoundError as error:
        return f"ddl_d2._C is not compiled ({error})"
    except ImportError as error:
        return f"ddl_d2._C was compiled for another PyTorch or Python; compile it again ({error})"
    return ""


_LOAD_ERROR = _load_extension()
_warned = False


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        missing = _LOAD_ERROR or "ddl_d2._C was compiled without CUDA"
        logger.warning("ms_deform_attn runs as slow PyTorch code: %s. To compile it: %s", missing, _BUILD_COMMAND)


def _fallback(*arguments: Tensor) -> Tensor:
    _warn_once()
    return ms_deform_attn_reference(*arguments)


def _fallback_backward(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _warn_once()
    return _reference_backward(*arguments)


def _autocast(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    dtype = _math_dtype(value)
    with torch.autocast(value.device.type, enabled=False):
        return ms_deform_attn(
            value, spatial_shapes, level_start_index, sampling_locations.to(dtype), attention_weights.to(dtype)
        )


def _fake(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    images, _, heads, channels = value.shape
    return value.new_empty((images, sampling_locations.shape[1], heads * channels))


def _fake_backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        sampling_locations.new_empty(sampling_locations.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad_output: Tensor):
    grads = torch.ops.ddl_d2.ms_deform_attn_backward(grad_output, *ctx.saved_tensors)
    return grads[0], None, None, grads[1], grads[2]


def _no_second_backward(ctx, *grads):
    raise NotImplementedError(
        "ms_deform_attn has no second derivative (create_graph=True); ms_deform_attn_reference has one"
    )


def _register() -> torch.library.Library:
    library = torch.library.Library("ddl_d2", "FRAGMENT")
    if _LOAD_ERROR:
        library.define(f"ms_deform_attn({_ARGUMENTS}) -> Tensor")
        library.define(f"ms_deform_attn_backward(Tensor grad_output, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
        key = "CompositeExplicitAutograd"
    else:
        key = "" if torch.ops.ddl_d2._cuda_built() else "CUDA"
    if key:
        library.impl("ms_deform_attn", _fallback, key)
        library.impl("ms_deform_attn_backward", _fallback_backward, key)
    for key in ("AutocastCPU", "AutocastCUDA"):
        library.impl("ms_deform_attn", _autocast, key)
    torch.library.register_fake("ddl_d2::ms_deform_attn", _fake, lib=library)
    torch.library.register_fake("ddl_d2::ms_deform_attn_backward", _fake_backward, lib=library)
    torch.library.register_autograd("ddl_d2::ms_deform_attn", _backward, setup_context=_setup_context, lib=library)
    torch.library.register_autograd("ddl_d2::ms_deform_attn_backward", _no_second_backward, lib=library)
    return library


_LIBRARY = _register()  # the registrations live as long as this object


# ---------------------------------------------------------------------------------------------------------------------
# Layer


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis; on CPUs by whole-array steps, five times faster than PyTorch's on short rows."""
    if logits.is_cuda:
        return logits.softmax(-1)
    powers = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention (arXiv 2010.04159, eq. 3) with its projections.

    Every query predicts `num_points` offsets and weights for each head and level from its own features; weights are a
    softmax over the L * P points of a head.
    """

    def __init__(self, embed_dim: int = 256, num_levels: int = 3, num_heads: int = 8, num_points: int = 4) -> None:
        """Args:
            embed_dim: C, channels of queries, values and output. Fast with C / num_heads a multiple of 16.
            num_levels: L.
            num_heads: H, divides C.
            num_points: P, for each head and level.

        Raises:
            ValueError: `embed_dim` is not a multiple of `num_heads`.
        """
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} must be a multiple of num_heads {num_heads}")
        self.embed_dim = embed_dim
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as in Deformable DETR: head h looks in direction 2 pi h / H, point p at p + 1 pixels, equal weights."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)  # on the square of "radius" 1
        steps = torch.arange(1, self.num_points + 1)
        ring = directions[:, None, None, :] * steps[None, None, :, None]  # [H, 1, P, 2]
        ring = ring.expand(-1, self.num_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(ring.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Args:
            query: [N, Q, C].
            reference_points: [N, Q, L, 2], (x, y) in [0, 1] over each level.
            input_flatten: [N, S, C], the levels one after another.
            spatial_shapes: [L, 2] int64, (height, width); best on the CPU, see `ms_deform_attn`.
            level_start_index: [L] int64.
            padding_mask: [N, S] bool, True where a pixel is padding and counts as 0; or None.

        Returns:
            [N, Q, C].

        Raises:
            RuntimeError: shapes do not fit together.
        """
        images, queries, _ = query.shape
        points = (self.num_heads, self.num_levels, self.num_points)
        value = self.value_proj(input_flatten)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0)
        value = value.unflatten(-1, (self.num_heads, -1))

        # A head's L * P * 2 numbers stay one axis: broadcasting along axes of 2 or 4 is ten times slower on CPUs.
        of_head = (self.num_levels, self.num_points, 2)
        offsets = self.sampling_offsets(query).view(images, queries, self.num_heads, -1)  # pixels of the level
        sizes = spatial_shapes.flip(-1).to(device=query.device, dtype=torch.float32)  # (width, height)
        scale = (1 / sizes)[:, None].expand(of_head).reshape(-1)
        reference = reference_points[:, :, None, :, None, :].expand(-1, -1, -1, -1, self.num_points, -1)
        locations = reference.reshape(images, queries, 1, -1) + offsets * scale
        weights = _softmax(self.attention_weights(query).view(images, queries, self.num_heads, -1))
        locations = locations.view(images, queries, *points, 2)
        weights = weights.view(images, queries, *points).to(locations.dtype)
        out = ms_deform_attn(value, spatial_shapes, level_start_index, locations, weights)
        return self.output_proj(out)

    def extra_repr(self) -> str:
        return (
            f"embed_dim={self.embed_dim}, num_levels={self.num_levels}, num_heads={self.num_heads}, "
            f"num_points={self.num_points}"
        )
