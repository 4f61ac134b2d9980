"""What is said of a file, from data and tables that are known."""

import io

import numpy as np
import pytest
from PIL import Image

from ddl_d2.io.file_metadata import read_file_metadata
from ddl_d2.report.file_findings import image_file_findings, resaved


def jpeg(image, quality, **exif):
    block = Image.Exif()
    for key, value in exif.items():
        if key == "size":
            block.get_ifd(0x8769)[0xA002], block.get_ifd(0x8769)[0xA003] = value
        else:
            block[{"make": 0x010F}[key]] = value
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=quality, exif=block)
    return content.getvalue()


@pytest.fixture
def image():
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("exif", "said"),
    [
        (
            {"size": (4000, 3000)},
            "This file was re-saved at JPEG quality about 70 after shrinking from 4000 × 3000 pixels.",
        ),
        (
            {"size": (3000, 1000)},
            "This file was re-saved at JPEG quality about 70 after cropping or shrinking from 3000 × 1000 pixels.",
        ),
        ({"make": "Maker"}, "This file was re-saved at JPEG quality about 70."),
        ({"size": (400, 300)}, ""),
        ({}, ""),
    ],
)
def test_signs_of_re_saving(image, exif, said):
    data = read_file_metadata(jpeg(image, 70, **exif))
    assert resaved(data, (70, True), []) == said


def test_findings_of_a_file_without_data(image):
    found = {f.name: f for f in image_file_findings(jpeg(image, 70), "a.jpg", max_pixels=10**6)}
    assert "points in no direction" in found["metadata"].statement
    assert found["jpeg_quality"].value == {"quality": 70, "libjpeg": True}
    assert "history" not in found


def test_a_declaration_without_a_signature_is_told(image):
    content = io.BytesIO()
    xmp = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    Image.fromarray(image).save(content, "JPEG", xmp=xmp)
    found = {f.name: f for f in image_file_findings(content.getvalue(), "a.jpg", max_pixels=10**6)}
    assert "declares that a trained model made the image" in found["metadata"].statement
    assert "not signed" in found["metadata"].limits[0]


def test_small_images_have_no_traces_to_look_for(image):
    found = {f.name: f for f in image_file_findings(jpeg(image[:40], 70), "a.jpg", max_pixels=10**6)}
    assert "smaller than 64 pixels" in found["traces"].statement
