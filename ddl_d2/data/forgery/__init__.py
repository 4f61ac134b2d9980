"""Forging real photographs: faces, region masks, displacement, appearance, blending, and whole toy datasets.

Nothing here knows a config: every step is a function of its arguments, and whatever is random comes from a
`numpy.random.Generator` that the caller hands over, so that (picture, seed) always gives the same forgery.

Vocabulary: `H, W` pixels; points are (x, y) in pixels with pixel centres at whole numbers; a *mask* is bool H×W,
a *soft mask* float32 H×W in [0, 1], 1 where the forged content replaces the picture.
"""

from ddl_d2.data.forgery.blend import blend, soft_mask
from ddl_d2.data.forgery.faces import DlibFaceFinder, Face, FaceFinder, FaceFinderUnavailable
from ddl_d2.data.forgery.forge import Forgery, ForgeryOptions, forge_faces
from ddl_d2.data.forgery.regions import REGIONS, region_mask
from ddl_d2.data.forgery.warp import Drag, Scale, displace, displaced_points, drag_points

__all__ = [
    "REGIONS",
    "DlibFaceFinder",
    "Drag",
    "Face",
    "FaceFinder",
    "FaceFinderUnavailable",
    "Forgery",
    "ForgeryOptions",
    "Scale",
    "blend",
    "displace",
    "displaced_points",
    "drag_points",
    "forge_faces",
    "region_mask",
    "soft_mask",
]
