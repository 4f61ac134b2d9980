"""What surrounds a network in an ONNX file: an image becomes its batch before, its output a score and a map after.

Each part is a graph in ONNX's own text. The steps are those of `data/transforms/resize.py`, `modeling/preprocessing.py`
and `modeling/postprocessing.py`, to the same gray levels.

Shapes: `B` images, all of one size, `V` views of them (B, or 2B with mirrored ones), `H, W` pixels of the image,
`h, w` as resized, `P, Q` as the network gets it (padded or stretched).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import GraphProto, parser

# Names of the values that pass between the parts.
IMAGE, NETWORK_INPUT, SIZES = "image", "network_input", "sizes"
FAKE, FORGED, AUTHENTIC = "network_fake", "network_forged", "network_authentic"
SCORE, MAP = "fake_score", "forgery_map"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """How images are shown to a network, and what becomes of its output.

    Attributes:
        min_size: shortest side of a resized image; 0: images are not resized.
        max_size: longest side.
        mean: subtracted from R, G, B.
        std: divides the difference.
        divisibility: images are padded to multiples of it; 0: they are stretched to `size`.
        size: (height, width), see `divisibility`.
        flip: see each image mirrored, too, and average.
        has_score: the network scores images; else a score is the map's, by `image_score`.
        has_authentic: the network gives a second map, see `modeling.system.Probabilities`.
        image_score: "mean", "max" or "top_pixels", see `modeling.heads.score_from_map`.
    """

    min_size: int
    max_size: int
    mean: Sequence[float]
    std: Sequence[float]
    divisibility: int
    size: tuple[int, int] = (0, 0)
    flip: bool = False
    has_score: bool
    has_authentic: bool
    image_score: str

    def before(self) -> GraphProto:
        """Return the graph uint8 B×H×W×3 -> float V×3×P×Q, the (h, w) that is not padding, and (H, W)."""
        steps = ["planes = Transpose<perm = [0, 3, 1, 2]>(image)", "original = Shape<start = 2>(planes)"]
        levels, resized = "planes", "pixels"
        if self.min_size:
            steps += [*_fitted(self.min_size, self.max_size), *_resized("planes", "fitted", "fit", whole=True)]
            levels = "fit"
        steps.append(f"pixels = Cast<to = 1>({levels})")
        if not self.divisibility:
            steps += [f"stretch_to = Constant<value_ints = {list(self.size)}>()"]
            steps += _resized(resized, "stretch_to", "stretched", whole=False)
            resized = "stretched"
        steps += [
            f"mean = Constant<value = float[1, 3, 1, 1] {_braces(self.mean)}>()",
            f"std = Constant<value = float[1, 3, 1, 1] {_braces(self.std)}>()",
            f"centered = Sub({resized}, mean)",
            "upright = Div(centered, std)",
            "used = Shape<start = 2>(upright)",
            "sizes_axis = Constant<value_ints = [0]>()",
            f"{SIZES} = Unsqueeze(used, sizes_axis)",
        ]
        steps += _with_mirrored("upright", "views") if self.flip else ["views = Identity(upright)"]
        steps += _padded("views", self.divisibility) if self.divisibility else [f"{NETWORK_INPUT} = Identity(views)"]
        outputs = f"float[V, 3, P, Q] {NETWORK_INPUT}, int64[1, 2] {SIZES}, int64[2] original"
        return _graph(f"before (uint8[B, H, W, 3] {IMAGE}) => ({outputs})", steps)

    def after(self) -> GraphProto:
        """Return the graph of the network's output -> scores float B, and maps float B×H×W."""
        cut = bool(self.divisibility)
        steps = [*_at_original(FORGED, "forged", cut=cut), "zero = Constant<value_float = 0.0>()"]
        steps.append("one = Constant<value_float = 1.0>()")
        if self.has_authentic:
            steps += [
                *_at_original(AUTHENTIC, "authentic", cut=cut),
                "together = Add(forged, authentic)",
                "least = Constant<value_float = 1e-12>()",
                "divisor = Max(together, least)",
                "share = Div(forged, divisor)",
                "maps = Clip(share, zero, one)",
            ]
        else:
            steps.append("maps = Clip(forged, zero, one)")
        steps += [f"scores = Identity({FAKE})"] if self.has_score else _map_scores(self.image_score)
        if self.flip:
            steps += _averaged()
        else:
            steps += [f"{SCORE} = Identity(scores)", f"{MAP} = Identity(maps)"]
        inputs = [f"float[V] {FAKE}"] if self.has_score else []
        inputs += [f"float[V, P, Q] {FORGED}"] + ([f"float[V, P, Q] {AUTHENTIC}"] if self.has_authentic else [])
        inputs += [f"int64[1, 2] {SIZES}", "int64[2] original"]
        return _graph(f"after ({', '.join(inputs)}) => (float[B] {SCORE}, float[B, H, W] {MAP})", steps)


def _graph(head: str, steps: list[str]) -> GraphProto:
    return parser.parse_graph(head + " {\n" + "\n".join(steps) + "\n}")


def _braces(values: Sequence[float]) -> str:
    return "{" + ", ".join(repr(float(value)) for value in values) + "}"


def _fitted(min_size: int, max_size: int) -> list[str]:
    """Compute `fitted`, int64 (h, w), from `original`, in double precision: the steps of `fitted_size`."""
    return [
        f"min_size = Constant<value = double {{{min_size}}}>()",
        f"max_size = Constant<value = double {{{max_size}}}>()",
        "fit_half = Constant<value = double {0.5}>()",
        "fit_least = Constant<value_ints = [1]>()",
        "shorter_side = ReduceMin<keepdims = 0>(original)",
        "longer_side = ReduceMax<keepdims = 0>(original)",
        "shorter = Cast<to = 11>(shorter_side)",
        "longer = Cast<to = 11>(longer_side)",
        "by_shorter = Div(min_size, shorter)",
        "by_longer = Div(max_size, longer)",
        "fit_scale = Min(by_shorter, by_longer)",
        "sides = Cast<to = 11>(original)",
        "scaled = Mul(sides, fit_scale)",
        "shifted = Add(scaled, fit_half)",
        "rounded = Cast<to = 7>(shifted)",
        "fitted = Max(rounded, fit_least)",
    ]


def _resized(source: str, size: str, target: str, *, whole: bool) -> list[str]:
    """Resize planes V×3×·×· to `size`, int64 (h, w), by PyTorch's antialiased bilinear kernel.

    Along x first, then along y; each is a product with a matrix, as ONNX Runtime's own antialiasing rounds otherwise.

    Args:
        source: name of the planes, float; with `whole` uint8. The result is of the same type.
        size: name of the size.
        target: name of the result.
        whole: with the kernel's arithmetic of whole gray levels (weights in fixed point, each axis rounded).
    """
    n = target
    steps = [f"{n}_from = Shape<start = 2>({source})"]
    for axis, name in ((0, f"{n}_rows"), (1, f"{n}_columns")):
        steps.append(f"{name}_axis = Constant<value_int = {axis}>()")
        steps += [
            f"{name}_{end} = Gather({vector}, {name}_axis)" for end, vector in (("in", f"{n}_from"), ("out", size))
        ]
        steps += _kernel(name, whole=whole)
    across, down = f"{n}_columns", f"{n}_rows"
    if whole:
        return [
            *steps,
            *_gray(source, across, f"{n}_across", down=False),
            *_gray(f"{n}_across", down, target, down=True),
        ]
    return [
        *steps,
        f"{across}_t = Transpose<perm = [1, 0]>({across})",
        f"{n}_across = MatMul({source}, {across}_t)",
        f"{target} = MatMul({down}, {n}_across)",
    ]


def _kernel(n: str, *, whole: bool) -> list[str]:
    """Compute the weights of one axis, `n`_out × `n`_in: float. With `whole`, they are times `n`_unit, a power of two.

    These are below 2^15; `n`_high and `n`_low, uint8, are their bytes.
    """
    steps = [
        f"{n}_ins = Cast<to = 11>({n}_in)",
        f"{n}_outs = Cast<to = 11>({n}_out)",
        f"{n}_0 = Constant<value = double {{0.0}}>()",
        f"{n}_1 = Constant<value = double {{1.0}}>()",
        f"{n}_half = Constant<value = double {{0.5}}>()",
        f"{n}_scale = Div({n}_ins, {n}_outs)",
        f"{n}_reach = Max({n}_scale, {n}_1)",
        f"{n}_i = Range({n}_0, {n}_outs, {n}_1)",
        f"{n}_j = Range({n}_0, {n}_ins, {n}_1)",
        f"{n}_i_center = Add({n}_i, {n}_half)",
        f"{n}_j_center = Add({n}_j, {n}_half)",
        f"{n}_center = Mul({n}_i_center, {n}_scale)",
        f"{n}_last = Constant<value_ints = [1]>()",
        f"{n}_column = Unsqueeze({n}_center, {n}_last)",
        f"{n}_apart = Sub({n}_j_center, {n}_column)",
        f"{n}_distance = Abs({n}_apart)",
        f"{n}_share = Div({n}_distance, {n}_reach)",
        f"{n}_falling = Sub({n}_1, {n}_share)",
        f"{n}_roof = Max({n}_falling, {n}_0)",
        f"{n}_total = ReduceSum({n}_roof, {n}_last)",
        f"{n}_weights = Div({n}_roof, {n}_total)",
    ]
    if not whole:
        return [*steps, f"{n} = Cast<to = 1>({n}_weights)"]
    # The largest power of two, 2^22 at most, with which the largest weight still rounds to less than 2^15.
    return [
        *steps,
        f"{n}_limit = Constant<value = double {{32767.5}}>()",
        f"{n}_most = Constant<value = double {{22.0}}>()",
        f"{n}_2 = Constant<value = double {{2.0}}>()",
        f"{n}_log_2 = Log({n}_2)",
        f"{n}_peak = ReduceMax<keepdims = 0>({n}_weights)",
        f"{n}_times = Div({n}_limit, {n}_peak)",
        f"{n}_log = Log({n}_times)",
        f"{n}_bits = Div({n}_log, {n}_log_2)",
        f"{n}_ceiling = Ceil({n}_bits)",
        f"{n}_power = Sub({n}_ceiling, {n}_1)",
        f"{n}_capped = Min({n}_power, {n}_most)",
        f"{n}_units = Pow({n}_2, {n}_capped)",
        f"{n}_unit = Cast<to = 6>({n}_units)",
        f"{n}_scaled = Mul({n}_weights, {n}_units)",
        f"{n}_shifted = Add({n}_scaled, {n}_half)",
        f"{n}_whole = Cast<to = 6>({n}_shifted)",
        f"{n}_byte = Constant<value = int32 {{256}}>()",
        f"{n}_upper = Div({n}_whole, {n}_byte)",
        f"{n}_lower = Mod({n}_whole, {n}_byte)",
        f"{n}_high = Cast<to = 2>({n}_upper)",
        f"{n}_low = Cast<to = 2>({n}_lower)",
    ]


def _gray(source: str, n: str, target: str, *, down: bool) -> list[str]:
    """Apply the kernel `n` to uint8 planes, along y or x, and round to gray levels.

    In whole numbers: a sum reaches 255 · 2^22, which float32 rounds to the next level at times.
    """
    steps = []
    for part in (f"{n}_high", f"{n}_low"):
        if down:
            steps.append(f"{part}_sum = MatMulInteger({part}, {source})")
        else:
            steps.append(f"{part}_t = Transpose<perm = [1, 0]>({part})")
            steps.append(f"{part}_sum = MatMulInteger({source}, {part}_t)")
    return [
        *steps,
        f"{n}_two = Constant<value = int32 {{2}}>()",
        f"{n}_white = Constant<value = int32 {{255}}>()",
        f"{n}_above = Mul({n}_high_sum, {n}_byte)",
        f"{n}_sum = Add({n}_above, {n}_low_sum)",
        f"{n}_half_unit = Div({n}_unit, {n}_two)",
        f"{n}_raised = Add({n}_sum, {n}_half_unit)",
        f"{n}_levels = Div({n}_raised, {n}_unit)",
        f"{n}_gray = Min({n}_levels, {n}_white)",
        f"{target} = Cast<to = 2>({n}_gray)",
    ]


def _mirrored(source: str, target: str, axis: int) -> list[str]:
    return [
        f"{target}_start = Constant<value_ints = [-1]>()",
        f"{target}_end = Constant<value_ints = [-9223372036854775807]>()",
        f"{target}_axis = Constant<value_ints = [{axis}]>()",
        f"{target}_step = Constant<value_ints = [-1]>()",
        f"{target} = Slice({source}, {target}_start, {target}_end, {target}_axis, {target}_step)",
    ]


def _with_mirrored(source: str, target: str) -> list[str]:
    return [*_mirrored(source, "mirrored", 3), f"{target} = Concat<axis = 0>({source}, mirrored)"]


def _padded(source: str, divisibility: int) -> list[str]:
    """Pad below and beside with zeros, to multiples of `divisibility`."""
    return [
        f"step = Constant<value_ints = [{divisibility}]>()",
        f"step_less_1 = Constant<value_ints = [{divisibility - 1}]>()",
        "reaching = Add(used, step_less_1)",
        "steps = Div(reaching, step)",
        "filled = Mul(steps, step)",
        "missing = Sub(filled, used)",
        "none = Constant<value_ints = [0, 0]>()",
        "pads = Concat<axis = 0>(none, missing)",
        "pad_axes = Constant<value_ints = [2, 3]>()",
        f"{NETWORK_INPUT} = Pad({source}, pads, , pad_axes)",
    ]


def _at_original(source: str, target: str, *, cut: bool) -> list[str]:
    """Cut the padding off maps V×P×Q (unless they were stretched), and resize them to H×W."""
    n = target
    return [
        f"{n}_0 = Constant<value_ints = [0, 0]>()",
        f"{n}_axes = Constant<value_ints = [1, 2]>()",
        f"{n}_first = Constant<value_ints = [0]>()",
        f"{n}_one = Constant<value_ints = [1]>()",
        f"{n}_used = Squeeze({SIZES}, {n}_first)",
        f"{n}_cut = Slice({source}, {n}_0, {n}_used, {n}_axes)" if cut else f"{n}_cut = Identity({source})",
        f"{n}_planes = Unsqueeze({n}_cut, {n}_one)",
        f"{n}_head = Shape<start = 0, end = 2>({n}_planes)",
        f"{n}_shape = Concat<axis = 0>({n}_head, original)",
        f'{n}_whole = Resize<mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel">'
        f"({n}_planes, , , {n}_shape)",
        f"{n} = Squeeze({n}_whole, {n}_one)",
    ]


def _map_scores(rule: str) -> list[str]:
    """Compute `scores`, float V, of `maps`, V×H×W."""
    if rule in ("mean", "max"):
        return [
            "score_axes = Constant<value_ints = [1, 2]>()",
            f"scores = Reduce{rule.capitalize()}<keepdims = 0>(maps, score_axes)",
        ]
    return [
        "flat_shape = Constant<value_ints = [0, -1]>()",
        "flat = Reshape(maps, flat_shape)",
        "count = ReduceProd<keepdims = 1>(original)",
        "hundred = Constant<value_ints = [100]>()",
        "hundredth = Div(count, hundred)",
        "fewest = Constant<value_ints = [1]>()",
        "k = Max(hundredth, fewest)",
        "top, top_places = TopK(flat, k)",
        "score_axes = Constant<value_ints = [1]>()",
        "scores = ReduceMean<keepdims = 0>(top, score_axes)",
    ]


def _averaged() -> list[str]:
    """Average scores V and maps V×H×W over an image and its mirror image."""
    return [
        "half_score, half_score_mirrored = Split<num_outputs = 2>(scores)",
        "half_map, half_map_mirrored = Split<num_outputs = 2>(maps)",
        *_mirrored("half_map_mirrored", "half_map_back", 2),
        f"{SCORE} = Mean(half_score, half_score_mirrored)",
        f"{MAP} = Mean(half_map, half_map_back)",
    ]
