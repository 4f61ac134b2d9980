"""Forging real images: region masks, displacement, appearance, blending, and whole toy datasets.

Nothing here knows a config: every step is a function of its arguments, and whatever is random comes from a
`numpy.random.Generator` that the caller hands over, so that (image, seed) always gives the same forgery.

Vocabulary: `H, W` pixels; points are (x, y) in pixels with pixel centers at whole numbers; a *mask* is bool H×W,
a *soft mask* float32 H×W in [0, 1], 1 where the forged content replaces the image.
"""

from ddl_d2.config.forgery_options import ForgeryOptions, PostOptions
from ddl_d2.forging.appearance import apply_steps, draw_post_steps
from ddl_d2.forging.blend import blend
from ddl_d2.forging.combine import CombineOptions, random_combination
from ddl_d2.forging.regions import REGIONS
from ddl_d2.forging.self_blend import Forgery, NoSuitableFaceError, self_blend
from ddl_d2.forging.warp import Drag, Scale, displaced_points, drag_points

__all__ = [
    "REGIONS",
    "CombineOptions",
    "Drag",
    "Forgery",
    "ForgeryOptions",
    "NoSuitableFaceError",
    "PostOptions",
    "Scale",
    "apply_steps",
    "blend",
    "displaced_points",
    "drag_points",
    "draw_post_steps",
    "random_combination",
    "self_blend",
]
