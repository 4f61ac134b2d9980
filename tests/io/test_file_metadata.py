"""What a file says of itself."""

import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ddl_d2.errors import ImageReadError
from ddl_d2.io.file_metadata import jpeg_quality, read_file_metadata, standard_table

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def saved(kind="JPEG", **options):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 70, 75, 90, 95, 99])
def test_the_quality_that_a_jpeg_was_saved_at(quality):
    (table, *_) = read_file_metadata(saved(quality=quality)).jpeg.tables
    np.testing.assert_array_equal(table, standard_table(quality))
    assert jpeg_quality(table) == (quality, True)


def test_tables_at_quality_50_are_the_standards_own():
    # ITU-T T.81, table K.1: first row.
    assert standard_table(50)[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert standard_table(100).max() == 1


def test_other_tables_are_near_to_a_quality_but_not_it():
    table = standard_table(80) + 1
    quality, exact = jpeg_quality(table)
    assert (75 <= quality <= 80, exact) == (True, False)


@pytest.mark.parametrize(("subsampling", "said"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_coding(subsampling, said):
    coding = read_file_metadata(saved(subsampling=subsampling, progressive=subsampling == 1)).jpeg
    assert (coding.subsampling, coding.progressive) == (said, subsampling == 1)


def test_camera_data():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Maker", "Model 1", "Program\n2"
    exif[0x8769] = {0xA002: 4000, 0xA003: 3000}
    exif[0x8825] = {1: "N"}
    found = read_file_metadata(saved(exif=exif)).exif
    assert found == {
        "Make": "Maker",
        "Model": "Model 1",
        "Software": "Program\\n2",
        "ExifImageWidth": 4000,
        "ExifImageHeight": 3000,
        "GPS": "present",
    }


def test_declared_sources_and_texts_of_generators():
    xmp = b'<x Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    assert list(read_file_metadata(saved(xmp=xmp)).declared_sources) == ["trainedAlgorithmicMedia"]
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a cat, " * 100)
    found = read_file_metadata(saved("PNG", pnginfo=texts))
    assert found.texts["parameters"].startswith("a cat, a cat")
    assert len(found.texts["parameters"]) == 200
    assert (found.jpeg, found.declared_sources, found.exif) == (None, [], {})


def test_damaged_camera_data_is_no_reason_to_refuse_the_image():
    content = saved(exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    found = read_file_metadata(content)
    assert (found.width, found.height) == (64, 48)


def test_what_is_no_image_is_refused():
    with pytest.raises(ImageReadError, match="clip"):
        read_file_metadata(b"no image", name="clip")
