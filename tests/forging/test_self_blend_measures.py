"""What self-blended forgeries measure over many draws: where they are displaced, what is forged, and how much."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from ddl_d2.config.forgery_options import ForgeryOptions
from ddl_d2.forging.region_plans import draw_face, draw_region
from ddl_d2.forging.regions import FEATURES
from ddl_d2.forging.self_blend import region_stages, self_blend
from ddl_d2.forging.warp import Drag, sampling_maps
from tests.forging.region_masks import region_mask

SHAPE = (400, 400)


@pytest.fixture
def face(synthetic_face):
    return synthetic_face(center=(200.0, 180.0), width=160.0)


def _stages(face, region, seed, options=None):
    """A region's plan, and what became of it in a gray image."""
    plan = draw_region(face, region, np.random.default_rng(seed), options or ForgeryOptions())
    return plan, region_stages(np.full((*SHAPE, 3), 128, np.uint8), face, plan)


def _displacement_at_the_border(face, seed):
    """Median over the mask's border, as a share of the face's width."""
    plan, stages = _stages(face, "face", seed)
    x0, y0, x1, y1 = stages.box
    xs, ys = sampling_maps(stages.box, plan.displacements)
    moved = np.hypot(xs - np.arange(x0, x1), ys - np.arange(y0, y1)[:, None])
    return np.median(moved[(stages.soft > 0.3) & (stages.soft < 0.7)]) / face.width


def test_whole_faces_are_displaced_at_their_border(face):
    """As SBI's are: its affine moves give .030, .040 and .051 at the quartiles."""
    moved = np.array([_displacement_at_the_border(face, seed) for seed in range(150)])
    assert (moved < 0.003).mean() < 0.02
    assert 0.03 < np.median(moved) < 0.055


def test_the_mask_moves_with_the_face(face):
    still = {"drag_count": (0, 0), "elastic_prob": 0.0, "forehead_prob": 0.0, "face_area": (1.0, 1.0)}
    options = ForgeryOptions(**still, shift_x=(0.04, 0.04), shift_y=(-0.02, -0.02), scale=(1.0, 1.0))
    plan, stages = _stages(face, "face", 0, options)
    (move,) = plan.displacements
    rows, columns = np.nonzero(stages.hard)
    center = columns.mean() + stages.box[0], rows.mean() + stages.box[1]
    before = np.argwhere(region_mask(face.landmarks, "face", SHAPE)).mean(0)[::-1]
    assert np.subtract(center, before) == pytest.approx(move.shift, abs=0.3)
    # the face's square is 1.5 times the longer side of its landmarks: 160 px wide, 128 px high
    assert move.shift == (pytest.approx(0.04 * 1.5 * 160, abs=0.01), pytest.approx(-0.02 * 1.5 * 160, abs=0.01))


@pytest.mark.parametrize("region", ["face", "lower_face", "mouth", "left_eye", "nose", "brows"])
def test_local_translations_are_shown_where_they_act(face, region):
    """The soft mask at their centers: at the jaw it used to be 0 at the median, in parts .19."""
    by_place = {"jaw": [], "inner": []}
    for seed in range(120):
        plan, stages = _stages(face, region, seed)
        for move in plan.displacements:
            if isinstance(move, Drag):
                nearest = int(np.argmin(np.hypot(*(face.landmarks - move.center).T)))
                x, y = round(move.center[0]) - stages.box[0], round(move.center[1]) - stages.box[1]
                by_place["jaw" if nearest < 17 else "inner"].append(stages.soft[y, x])
    assert len(by_place["inner"]) > 20
    assert np.median(by_place["inner"]) > 0.6
    if region in ("face", "lower_face"):
        assert len(by_place["jaw"]) > 20
        assert np.median(by_place["jaw"]) > 0.6


def test_a_contour_is_pulled_outwards(face):
    """Face slimming and its opposite: more than the largest face is forged, which without them never happens."""
    outside = ~region_mask(face.landmarks, "face", SHAPE, area_factor=1.1)
    reached = {}
    for count in ((0, 0), (1, 2)):
        options = ForgeryOptions(move_prob=0.0, forehead_prob=0.0, drag_count=count)
        reached[count] = 0
        for seed in range(60):
            _, stages = _stages(face, "face", seed, options)
            x0, y0, x1, y1 = stages.box
            reached[count] += (stages.soft[outside[y0:y1, x0:x1]] > 0.5).sum() > 20  # pixels, of a face of 15,000
    assert reached[0, 0] == 0
    assert reached[1, 2] > 20


def test_parts_are_balanced_and_do_not_overlap(face):
    options = ForgeryOptions(whole_face_prob=0.0)
    of_feature, of_region, numbers = Counter(), Counter(), Counter()
    for seed in range(1500):
        regions = [plan.region for plan in draw_face(face, np.random.default_rng(seed), options)]
        numbers[len(regions)] += 1
        of_region.update(regions)
        of_feature.update(FEATURES[region][0] for region in regions)
        for one, other in combinations(regions, 2):
            assert not (region_mask(face.landmarks, one, SHAPE) & region_mask(face.landmarks, other, SHAPE)).any()
    total = sum(of_feature.values())
    for feature in ("eyes", "nose", "mouth"):
        # the nose a little less: a band over both eyes and the lower face hold some of it
        assert 0.25 < of_feature[feature] / total < 0.4, of_feature
    assert set(of_region) == set(options.parts)
    assert set(numbers) == {1, 2, 3}


@pytest.mark.parametrize("one", FEATURES)
@pytest.mark.parametrize("other", FEATURES)
def test_regions_that_share_no_feature_do_not_overlap(astronaut, astronaut_face, one, other):
    overlap = region_mask(astronaut_face.landmarks, one, astronaut.shape[:2]) & region_mask(
        astronaut_face.landmarks, other, astronaut.shape[:2]
    )
    if not set(FEATURES[one]) & set(FEATURES[other]):
        assert not overlap.any()


def test_only_the_parts_asked_for_are_drawn(face):
    options = ForgeryOptions(whole_face_prob=0.0, parts=("nose", "eye_band"), part_count=(2, 3))
    drawn = [[plan.region for plan in draw_face(face, np.random.default_rng(seed), options)] for seed in range(30)]
    assert {tuple(regions) for regions in drawn} == {("nose",), ("eye_band",)}  # they overlap


def test_half_of_the_forgeries_cover_the_face(synthetic_face):
    """Of crops as in training on FaceForensics++; a median of 5.6 % was forged."""
    image = np.random.default_rng(0).integers(0, 256, (230, 208, 3), dtype=np.uint8)  # margins of 30 % around a face
    face = synthetic_face(center=(104.0, 110.0), width=130.0)
    whole, shares = 0, []
    for seed in range(300):
        forgery = self_blend(image, [face], np.random.default_rng(seed))
        whole += forgery.record["faces"][0]["regions"][0]["region"] == "face"
        shares.append(forgery.mask.mean())
    assert whole / 300 == pytest.approx(0.5, abs=0.08)
    assert np.mean(np.array(shares) > 0.15) > 0.42


def test_whole_faces_reach_into_the_forehead(face):
    """Three in four, as SBI's; the rest end at the brows."""
    brows = face.landmarks[17:27, 1].min()
    options = ForgeryOptions(move_prob=0.0, drag_count=(0, 0), face_area=(1.0, 1.0), elastic_prob=0.0)
    above = []
    for seed in range(200):
        _, stages = _stages(face, "face", seed, options)
        above.append((brows - stages.box[1] - np.nonzero(stages.hard)[0].min()) / face.width)
    above = np.array(above)
    assert (above > 0.05).mean() == pytest.approx(0.75, abs=0.08)
    assert above.min() < 0.01
    # the bridge of the nose is .70 of the width above the chin: at most .4 · .70 more
    assert 0.15 < above.max() < 0.29
