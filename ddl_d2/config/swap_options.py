"""What swap-like forgeries of portraits are drawn from: the ranges behind INPUT.FACE_SWAP.

Each field is a config key: `mirror_prob` is INPUT.FACE_SWAP.MIRROR_PROB. The comment above a field is its
documentation, also in the config reference. A range is (smallest, largest). Lengths are shares of the face's width, the
horizontal extent of its landmarks, unless said otherwise. A probability of 0 switches a step off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ddl_d2.config.forgery_options import Probability, Range, Within, check_fields


@dataclass(frozen=True)
class SwapOptions:
    """The ranges that a swap-like pair is drawn from; the comment above each field is its meaning.

    Defaults are the release recipe's; docs/release_ablation.md has the measurements behind them.

    Raises:
        ValueError: a value out of its limits, or a range the wrong way round.
    """

    # Side of the pair, pixels.
    size: Annotated[int, Within(32, 1024)] = 160
    # Kept around the face's landmarks on the left and right, as shares of their box.
    margin: Annotated[Range, Within(-0.2, 2.0)] = (-0.02, 0.35)
    # Kept above the landmarks, as a share of their box.
    margin_top: Annotated[Range, Within(-0.2, 2.0)] = (0.1, 0.5)
    # Longest side at which the face is forged, pixels; each ratio is as likely.
    forged_at: Annotated[Range, Within(24.0, 1024.0)] = (64.0, 230.0)
    # How likely the photograph is turned and tilted.
    rotate_prob: Probability = 0.4
    # Turn of the photograph, degrees.
    rotate: Annotated[Range, Within(-180.0, 180.0)] = (-15.0, 15.0)
    # Deviation by which its corners move when it is tilted, as a share of its sides.
    perspective: Annotated[float, Within(0.0, 0.2)] = 0.06
    # How likely the photograph is degraded, as by a camera and a codec, before it is forged.
    camera_prob: Probability = 0.8
    # How likely it is softened then, as pasted faces are.
    soft_camera_prob: Probability = 0.5

    # How likely the pasted face is the mirrored one, brought back to the pose by warping.
    mirror_prob: Probability = 0.25
    # How likely, otherwise, its brows, eyes, nose and mouth are moved a little.
    repose_prob: Probability = 0.3
    # How likely, otherwise, it has smooth local bulges.
    bend_prob: Probability = 0.4
    # How likely its texture is rebuilt from eigenfaces, which are made of the training images.
    eigen_prob: Probability = 0.4
    # How likely it is rebuilt, otherwise, by the network of AUTOENCODER.
    autoencoder_prob: Probability = 0.0
    # How likely the whole image is rebuilt by that network, and no face pasted.
    whole_prob: Probability = 0.0
    # The size at which it is rebuilt then, as a share of its own; each ratio is as likely.
    whole_size: Annotated[Range, Within(0.1, 2.0)] = (0.5, 1.2)
    # How likely the pasted face changes in color, sharpness and light; otherwise its surroundings do.
    source_prob: Probability = 0.6
    # How likely it loses fine detail.
    soften_prob: Probability = 0.6
    # How likely it gains fine detail; together with SOFTEN_PROB at most 1.
    sharpen_prob: Probability = 0.2
    # Scale of the random change of colors; 0 is none, 1 about that of self-blended images.
    recolor: Annotated[float, Within(0.0, 4.0)] = 1.0
    # How likely a smooth field of light is laid over it.
    relight_prob: Probability = 0.25
    # How likely its colors are matched to those that it covers.
    match_prob: Probability = 0.6
    # How far they are matched.
    match: Annotated[Range, Within(0.0, 1.0)] = (0.6, 1.0)
    # How likely only its fine structure is kept, on the local colors of what it covers.
    harmonize_prob: Probability = 0.15
    # Horizontal shift of the pasted face, together with its mask.
    shift_x: Annotated[Range, Within(-0.5, 0.5)] = (-0.05, 0.05)
    # Vertical shift of the pasted face, together with its mask.
    shift_y: Annotated[Range, Within(-0.5, 0.5)] = (-0.04, 0.04)
    # Scale of the pasted face, together with its mask.
    scale: Annotated[Range, Within(0.5, 2.0)] = (0.94, 1.06)

    # How likely a part of the face is forged and not the whole.
    part_prob: Probability = 0.15
    # How likely a whole face reaches into the forehead.
    forehead_prob: Probability = 0.35
    # How likely a whole face leaves out the rim of jaw and chin; together with FOREHEAD_PROB at most 1.
    inner_prob: Probability = 0.3
    # How far noise bends the outline.
    elastic: Annotated[Range, Within(0.0, 0.5)] = (0.02, 0.1)
    # Deviation of the blur of the edge.
    feather: Annotated[Range, Within(0.0, 0.5)] = (0.005, 0.055)
    # Weights of the blend, each as likely.
    ratios: tuple[float, ...] = (0.5, 0.75, 1.0, 1.0, 1.0, 1.0)

    # How likely the light of both images of a pair changes.
    tone_prob: Probability = 0.6
    # How likely they get a color cast.
    cast_prob: Probability = 0.4
    # How likely their saturation changes.
    saturation_prob: Probability = 0.4
    # How likely they are resized on the way.
    shrink_prob: Probability = 0.6
    # The side to which they are resized on the way, pixels; each ratio is as likely.
    shrink: Annotated[Range, Within(16.0, 1024.0)] = (48.0, 224.0)
    # How likely they are blurred.
    blur_prob: Probability = 0.25
    # How likely they are blurred along a line.
    motion_prob: Probability = 0.1
    # How likely they get noise.
    noise_prob: Probability = 0.2
    # How likely they are compressed as JPEG in the end.
    jpeg_prob: Probability = 0.5
    # Quality of the JPEGs.
    jpeg_quality: Annotated[Range, Within(1.0, 100.0)] = (35.0, 97.0)
    # How likely a codec on the way is H.264 and not JPEG.
    h264_prob: Probability = 0.3
    # Constant rate factor of H.264; higher is coarser.
    h264_crf: Annotated[Range, Within(0.0, 51.0)] = (20.0, 36.0)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.ratios or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise ValueError(f"ratios must be numbers above 0, up to 1, not {self.ratios!r}")
        for one, other in (("soften_prob", "sharpen_prob"), ("forehead_prob", "inner_prob")):
            if getattr(self, one) + getattr(self, other) > 1 + 1e-9:
                raise ValueError(f"{one} and {other} are together at most 1")
