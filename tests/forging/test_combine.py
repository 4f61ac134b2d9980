import json

import cv2
import numpy as np
import pytest

from ddl_d2.forging.canvas import Photo
from ddl_d2.forging.combine import ALIGNMENTS, HALVES, CombineOptions, _halved, alignment_matrix, random_combination
from ddl_d2.forging.self_blend import NoSuitableFaceError
from tests.forging.region_masks import region_mask

HARD = CombineOptions(area=(1.0, 1.0), match_prob=0.0, soft_prob=0.0, mirror_prob=0.0, half_prob=0.0, count=(1, 1))


@pytest.fixture
def photo(synthetic_face):
    """Gray, 200 x 240, with a face 60 pixels wide."""
    return Photo("image", np.full((200, 240, 3), 90, np.uint8), (synthetic_face((80.0, 90.0), 60.0),))


@pytest.fixture
def donor(synthetic_face):
    """Green, with a face 90 pixels wide."""
    return Photo("donor", np.full((220, 260, 3), (0, 200, 0), np.uint8), (synthetic_face((120.0, 110.0), 90.0),))


def changed_to(options, **values):
    return CombineOptions(**{**options.__dict__, **values})


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_splice_covers_the_face_and_nothing_else(photo, donor, alignment):
    """The two faces have one shape: whichever way it is laid over the other, the donor's hull is the other's."""
    options = changed_to(HARD, splice_prob=1.0, alignments=(alignment,))
    made = random_combination(photo, [donor], np.random.default_rng(0), options)
    hull = region_mask(photo.faces[0].landmarks, "face", (200, 240))
    assert (made.mask != hull).sum() < 0.03 * hull.sum()
    assert (made.image[made.mask] == (0, 200, 0)).all()
    np.testing.assert_array_equal(made.image[~made.mask], photo.image[~made.mask])
    np.testing.assert_array_equal(made.soft > 0.5, made.mask)
    assert made.real is photo.image
    (insertion,) = made.record["insertions"]
    assert (insertion["kind"], insertion["alignment"], insertion["donor"]) == ("splice", alignment, "donor")


def test_alignment_by_hand(synthetic_face):
    """A face moved by a matrix is laid back over itself by that matrix, unless the alignment cannot turn or shear."""
    face = synthetic_face((100.0, 100.0), 80.0)
    turned = 1.5 * np.array([[0.8, -0.6], [0.6, 0.8]])  # cosine .8, sine .6
    turn = np.concatenate([turned, [[5.0], [7.0]]], axis=1)
    shear = np.array([[1.2, 0.3, 4.0], [0.0, 0.9, -2.0]])
    double = np.array([[2.0, 0.0, 10.0], [0.0, 2.0, -30.0]])
    for alignment, matrix in (("affine", shear), ("affine", turn), ("similarity", turn), ("center", double)):
        np.testing.assert_allclose(alignment_matrix(face, face.moved(matrix), alignment), matrix, atol=1e-6)
    upright = alignment_matrix(face, face.moved(turn), "center")
    assert upright[0, 1] == upright[1, 0] == 0


def test_pastes_lie_inside_and_have_their_width(photo, donor):
    places = []
    for seed in range(60):
        made = random_combination(
            photo, [donor], np.random.default_rng(seed), changed_to(HARD, splice_prob=0.0, paste_angle=0.0)
        )
        rows, columns = np.flatnonzero(made.mask.any(1)), np.flatnonzero(made.mask.any(0))
        # .4 to .6 of the image's face of 60 pixels; a pixel for the outline
        assert 24 <= np.ptp(columns) + 1 <= 38
        assert (made.image[made.mask] == (0, 200, 0)).all()
        places.append((rows.mean(), columns.mean()))
        (insertion,) = made.record["insertions"]
        assert (insertion["kind"], insertion["alignment"]) == ("paste", "")
    assert np.ptp(places, axis=0)[0] > 110  # of 200 minus a face
    assert np.ptp(places, axis=0)[1] > 140  # of 240


@pytest.mark.parametrize("half", HALVES)
def test_halves_of_a_square(half):
    square = np.array([[0.0, 0], [4, 0], [4, 4], [0, 4]])
    found = {tuple(point) for point in _halved(square, half)}
    assert (
        found
        == {
            "left": {(0, 0), (2, 0), (2, 4), (0, 4)},
            "right": {(2, 0), (4, 0), (4, 4), (2, 4)},
            "top": {(0, 0), (4, 0), (4, 2), (0, 2)},
            "bottom": {(0, 2), (4, 2), (4, 4), (0, 4)},
        }[half]
    )


def test_half_a_face_is_half_as_much(photo, donor):
    whole, half = (
        random_combination(
            photo,
            [donor],
            np.random.default_rng(3),
            changed_to(HARD, splice_prob=0.0, half_prob=prob, paste_width=(0.6, 0.6), paste_angle=0.0),
        ).mask.sum()
        for prob in (0.0, 1.0)
    )
    assert 0.3 < half / whole < 0.7  # a face is wider at the cheeks than at the chin


def test_colors_are_matched_by_the_drawn_share(photo, donor):
    """From (0, 200, 0) half of the way to (90, 90, 90): (45, 145, 45)."""
    options = changed_to(HARD, splice_prob=1.0, match_prob=1.0, match=(0.5, 0.5))
    made = random_combination(photo, [donor], np.random.default_rng(0), options)
    assert (made.image[made.mask] == (45, 145, 45)).all()
    (step,) = made.record["insertions"][0]["appearance"]
    assert step == {"name": "shift_rgb", "offsets": [45.0, -55.0, 45.0]}


def test_a_soft_edge_is_narrow(photo, donor):
    options = changed_to(HARD, splice_prob=1.0, soft_prob=1.0)
    made = random_combination(photo, [donor], np.random.default_rng(0), options)
    between = (made.soft > 1e-3) & (made.soft < 1 - 1e-3)
    hull = region_mask(photo.faces[0].landmarks, "face", (200, 240)).view(np.uint8)
    around = cv2.dilate(hull, np.ones((7, 7))) > cv2.erode(hull, np.ones((7, 7)))  # three pixels on each side
    assert between.any()
    assert not (between & ~around).any()
    np.testing.assert_array_equal(made.image[made.soft == 0], photo.image[made.soft == 0])


def test_a_mirrored_donor_is_mirrored(photo, synthetic_face):
    """Left half red, right half blue; mirrored, blue is on the left."""
    pixels = np.full((200, 200, 3), (200, 0, 0), np.uint8)
    pixels[:, 100:] = (0, 0, 200)
    donor = Photo("two", pixels, (synthetic_face((99.5, 100.0), 90.0),))
    for prob, left in ((0.0, "red"), (1.0, "blue")):
        options = changed_to(HARD, splice_prob=1.0, alignments=("similarity",), mirror_prob=prob)
        made = random_combination(photo, [donor], np.random.default_rng(0), options)
        color = made.image[100, 70]  # the middle of the face is at 80
        assert ("red" if color[0] > color[2] else "blue") == left


def test_the_same_seed_gives_the_same_bytes_and_a_plain_record(photo, donor):
    one, two, other = (random_combination(photo, [donor], np.random.default_rng(s)) for s in (5, 5, 6))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.soft.tobytes() == two.soft.tobytes()
    assert one.record == two.record
    assert one.image.tobytes() != other.image.tobytes()
    assert json.loads(json.dumps(one.record)) == one.record


def test_one_to_three_faces_and_only_the_first_a_splice(photo, donor):
    numbers = []
    for seed in range(60):
        made = random_combination(photo, [donor], np.random.default_rng(seed))
        kinds = [insertion["kind"] for insertion in made.record["insertions"]]
        numbers.append(len(kinds))
        assert "splice" not in kinds[1:]
        assert made.mask.any()
        np.testing.assert_array_equal(made.image[made.soft == 0], photo.image[made.soft == 0])
    assert set(numbers) == {1, 2, 3}


def test_a_donor_too_small_for_the_face_is_pasted(photo, synthetic_face):
    small = Photo("small", np.full((80, 80, 3), 200, np.uint8), (synthetic_face((40.0, 35.0), 26.0),))
    options = changed_to(HARD, splice_prob=1.0, max_enlargement=2.0)  # 52 of 60
    made = random_combination(photo, [small], np.random.default_rng(0), options)
    assert made.record["insertions"][0]["kind"] == "paste"


def test_faces_that_cannot_be_used(photo, donor, synthetic_face):
    cut_off = Photo("cut off", donor.image, (synthetic_face((10.0, 110.0), 90.0),))
    bare = Photo("bare", photo.image, ())
    with pytest.raises(NoSuitableFaceError, match="donors of image"):
        random_combination(photo, [cut_off, bare], np.random.default_rng(0))
    with pytest.raises(NoSuitableFaceError, match="^bare"):
        random_combination(bare, [donor], np.random.default_rng(0))
    with pytest.raises(ValueError, match="alignments are some of"):
        random_combination(photo, [donor], np.random.default_rng(0), CombineOptions(alignments=("perspective",)))


def test_real_faces_look_as_they_should(finder, astronaut, astronaut_face, synthetic_face, shared):
    """A face spliced into the astronaut's is found again where hers was."""
    from ddl_d2.io.image import read_image

    path = shared / "data" / "multi_face_photos" / "dlib_2007_007763.jpg"
    image = read_image(path, max_pixels=10**7)
    donor = Photo(path.name, image, tuple(finder(image)))
    options = changed_to(HARD, splice_prob=1.0, alignments=("similarity",))
    made = random_combination(Photo("a", astronaut, (astronaut_face,)), [donor], np.random.default_rng(2), options)
    found = min(finder(made.image), key=lambda face: np.abs(face.landmarks - astronaut_face.landmarks).mean())
    assert np.abs(found.landmarks - astronaut_face.landmarks).mean() < 0.08 * astronaut_face.width
    assert np.abs(made.image[made.mask].astype(int) - astronaut[made.mask]).mean() > 5
