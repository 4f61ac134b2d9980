"""MDMF by hand on 9 x 9 pixels, against a slow reference on shapes nobody would choose, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.errors import FusionError
from ddl_d2.fusion import FUSION_MODES, fuse_masks
from ddl_d2.fusion.morphology import close, dilate, erode


def _mask(image: str) -> np.ndarray:
    """# is forged."""
    return np.array([[character == "#" for character in line] for line in image.split()])


# Two single pixels, one of them on the lower border, and a block in the lower right corner that holds the second.
FIRST = """
.........
.#.......
.........
.........
.........
.........
.........
.........
...#.....
"""
SECOND = """
.........
.........
.........
...######
...######
...######
...######
...######
...######
"""
# Dilated: rows and columns -1..3 and, below, rows 6..10, columns 1..5, as far as they are in the image. Eroded: the
# block has no neighbors to lose beyond the border, so only its upper and left two lines go: rows, columns 5..8.
PAPER = """
####.....
####.....
####.....
####.....
.........
.....####
.########
.########
.########
"""
# Closing the first: the upper pixel grows to rows, columns 0..3; a pixel stays if all of its 5 x 5 that lies in the
# image is among them, which holds for rows, columns 0..1. The lower grows to rows 6..8, columns 1..5 and shrinks to
# row 8, column 3. Closing the block: rows, columns 1..8, then 3..8 again.
RELEASED = """
##.......
##.......
.........
...######
...######
...######
...######
...######
...######
"""
EITHER = """
.........
.#.......
.........
...######
...######
...######
...######
...######
...######
"""
BOTH = """
.........
.........
.........
.........
.........
.........
.........
.........
...#.....
"""


@pytest.mark.parametrize(
    ("mode", "expected"), [("paper", PAPER), ("released", RELEASED), ("or", EITHER), ("and", BOTH)]
)
def test_by_hand(mode, expected):
    first, second = _mask(FIRST), _mask(SECOND)
    assert fuse_masks(first, second, mode=mode).tolist() == _mask(expected).tolist()
    assert (first == _mask(FIRST)).all()
    assert (second == _mask(SECOND)).all()


def test_the_default_is_the_paper():
    assert (fuse_masks(_mask(FIRST), _mask(SECOND)) == _mask(PAPER)).all()


def test_golden_numbers():
    """B = 5 x 5: a pixel grows to 25; a block of 5 x 5 shrinks to one pixel, of 4 x 4 to none."""
    for side, grown, left in ((1, 25, 0), (4, 64, 0), (5, 81, 1)):
        mask = np.zeros((21, 21), bool)
        mask[8 : 8 + side, 8 : 8 + side] = True
        assert (dilate(mask).sum(), erode(mask).sum()) == (grown, left)
    for gap, filled in ((4, True), (5, False)):  # columns between two halves of an image
        mask = np.ones((9, 20), bool)
        mask[:, 8 : 8 + gap] = False
        assert bool(close(mask).all()) is filled


def test_what_only_the_first_or_the_second_saw():
    """A pixel of the coarse system grows to 25, one of the fine system is taken for noise."""
    pixel, nothing = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    pixel[4, 4] = True
    assert fuse_masks(pixel, nothing).sum() == 25
    assert fuse_masks(nothing, pixel).sum() == 0


@pytest.mark.parametrize("mode", FUSION_MODES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2), (9, 9)])
def test_empty_and_full_masks(mode, shape):
    """Also of one pixel, and smaller than the kernel: nothing appears from outside, and nothing is lost to it."""
    full, empty = np.ones(shape, bool), np.zeros(shape, bool)
    assert fuse_masks(full, full, mode=mode).all()
    assert not fuse_masks(empty, empty, mode=mode).any()
    for pair in ((full, empty), (empty, full)):
        assert fuse_masks(*pair, mode=mode).all() == fuse_masks(*pair, mode=mode).any() == (mode != "and")


def _slow(mask: np.ndarray, kernel_size: int, iterations: int, combine) -> np.ndarray:
    """Every pixel becomes `combine` (any, all) of those around it that lie in the image."""
    radius = kernel_size // 2
    for _ in range(iterations):
        mask = np.array(
            [
                [
                    combine(mask[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1].flat)
                    for x in range(mask.shape[1])
                ]
                for y in range(mask.shape[0])
            ]
        )
    return mask


@pytest.mark.parametrize("shape", [(1, 1), (1, 13), (2, 3), (7, 5), (17, 11)])
@pytest.mark.parametrize(("kernel_size", "iterations"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 3), (7, 2)])
def test_against_the_definition(shape, kernel_size, iterations):
    rng = np.random.default_rng(shape[0] * 100 + kernel_size * 10 + iterations)
    for share in (0.1, 0.5, 0.9):
        first, second = (rng.random(shape) < share), (rng.random(shape[::-1]) < share).T  # the second lies across
        size = (kernel_size, iterations)
        grown, shrunk = _slow(first, *size, any), _slow(second, *size, all)
        assert (dilate(first, *size) == grown).all()
        assert (erode(second, *size) == shrunk).all()
        closed = [_slow(_slow(mask, *size, any), *size, all) for mask in (first, second)]
        options = {"kernel_size": kernel_size, "iterations": iterations}
        assert (fuse_masks(first, second, **options) == grown | shrunk).all()
        assert (fuse_masks(first, second, mode="released", **options) == closed[0] | closed[1]).all()


@pytest.mark.parametrize("kernel_size", [-3, 0, 2, 4])
@pytest.mark.parametrize("mode", ["paper", "released"])
def test_a_kernel_without_a_center(mode, kernel_size):
    mask = np.ones((3, 3), bool)
    with pytest.raises(FusionError, match=f"side of {kernel_size}: it must be odd"):
        fuse_masks(mask, mask, mode=mode, kernel_size=kernel_size)


def test_what_is_refused():
    mask = np.ones((3, 3), bool)
    with pytest.raises(FusionError, match="0 iterations"):
        fuse_masks(mask, mask, iterations=0)
    with pytest.raises(FusionError, match="one of paper, released, or, and, not 'xor'"):
        fuse_masks(mask, mask, mode="xor")
    with pytest.raises(FusionError, match="threshold a map first"):
        fuse_masks(mask, mask.astype(np.uint8))
    with pytest.raises(FusionError, match=r"\(3, 3\) and \(3, 2\) pixels"):
        fuse_masks(mask, mask[:, :2])
    with pytest.raises(FusionError, match=r"\(0, 4\)"):
        fuse_masks(np.ones((0, 4), bool), np.ones((0, 4), bool))
