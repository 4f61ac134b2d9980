"""Forging real photographs: faces, region masks, displacement, appearance, blending, and whole toy datasets.

Nothing here knows a config: every step is a function of its arguments, and whatever is random comes from a
`numpy.random.Generator` that the caller hands over, so that (picture, seed) always gives the same forgery.

Vocabulary: `H, W` pixels; points are (x, y) in pixels with pixel centres at whole numbers; a *mask* is bool H×W,
a *soft mask* float32 H×W in [0, 1], 1 where the forged content replaces the picture.
"""

from ddl_d2.data.forgery.appearance import PostOptions, apply_steps, draw_post_steps
from ddl_d2.data.forgery.blend import blend
from ddl_d2.data.forgery.combine import CombineOptions, random_combination
from ddl_d2.data.forgery.face_cache import CachedFaceFinder
from ddl_d2.data.forgery.faces import (
    DlibFaceFinder,
    Face,
    FaceFinder,
    FaceFinderUnavailable,
    YuNetFaceFinder,
    make_finder,
)
from ddl_d2.data.forgery.forge import Forgery, NoSuitableFace, self_blend
from ddl_d2.data.forgery.options import ForgeryOptions
from ddl_d2.data.forgery.regions import REGIONS
from ddl_d2.data.forgery.warp import Drag, Scale, displaced_points, drag_points

__all__ = [
    "REGIONS",
    "CachedFaceFinder",
    "CombineOptions",
    "DlibFaceFinder",
    "Drag",
    "Face",
    "FaceFinder",
    "FaceFinderUnavailable",
    "Forgery",
    "ForgeryOptions",
    "NoSuitableFace",
    "PostOptions",
    "Scale",
    "YuNetFaceFinder",
    "apply_steps",
    "blend",
    "displaced_points",
    "drag_points",
    "draw_post_steps",
    "make_finder",
    "random_combination",
    "self_blend",
]
