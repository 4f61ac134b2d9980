"""Traces of earlier saves, on images whose history is known."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ddl_d2.io.image import decode_luma, jpeg_bytes
from ddl_d2.report.traces import earlier_qualities, enlargement


@pytest.fixture(scope="module")
def clean(astronaut):
    """A photograph without a trace: shrunk by an odd factor."""
    return cv2.resize(astronaut[:480, :480], (331, 331), interpolation=cv2.INTER_AREA)


def saved(image, *qualities):
    for quality in qualities:
        content = jpeg_bytes(image, quality).tobytes()
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image


def luma(image):
    return np.asarray(Image.fromarray(image).convert("L"))


@pytest.mark.parametrize(("first", "last"), [(70, 90), (80, 95), (90, 95), (60, 80)])
def test_an_earlier_save_at_a_lower_quality_is_found(clean, first, last):
    (found, *_) = earlier_qualities(luma(saved(clean, first, last)), saved_at=last)
    assert abs(found[0] - first) <= 1


@pytest.mark.parametrize("quality", [75, 90])
def test_one_save_is_no_earlier_one(clean, quality):
    assert earlier_qualities(luma(saved(clean, quality)), saved_at=quality) == []
    # In a file that is no JPEG it is one.
    assert abs(earlier_qualities(luma(saved(clean, quality)))[0][0] - quality) <= 1
    assert earlier_qualities(luma(clean)) == []


def test_a_later_save_at_a_lower_quality_covers_it(clean):
    assert earlier_qualities(luma(saved(clean, 90, 70)), saved_at=70) == []


def test_enlarging_by_three_halves_has_a_period_of_three(clean):
    enlarged = cv2.resize(clean, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_LINEAR)
    for image in (enlarged, saved(enlarged, 95)):
        trace = enlargement(luma(image))
        assert trace.found
        assert trace.frequency == pytest.approx(1 / 3, abs=0.01)
    assert not enlargement(luma(clean)).found
    assert not enlargement(luma(saved(clean, 90))).found


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_image_has_no_traces(value):
    flat = np.full((80, 100), value, np.uint8)
    assert earlier_qualities(flat) == []
    assert not enlargement(flat).found


def test_lightness_is_not_turned(tmp_path, clean):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(clean[:100]).save(tmp_path / "a.jpg", exif=exif)
    assert decode_luma((tmp_path / "a.jpg").read_bytes()).shape == (100, 331)
