import math

import pytest
import torch

from ddl_d2.modeling.lfdl.pseudo_labels import label_locations, nose_cells

CPU = torch.device("cpu")


def _places(*angles, lengths=None) -> torch.Tensor:
    """Features of two channels in a row of places, by their angles in degrees: 2×1×N."""
    radians = torch.tensor([math.radians(a) for a in angles])
    scale = torch.ones(len(angles)) if lengths is None else torch.tensor(lengths)
    return (torch.stack([radians.cos(), radians.sin()]) * scale)[:, None]


# A real image around 0 degrees, two fakes of unknown mask whose noses (place 1) point to 90 and 70 degrees.
FEATURES = torch.stack([_places(-10, 0, 10, 0), _places(5, 90, 50, 35), _places(44, 70, -20, 41)])
IS_FAKE = torch.tensor([False, True, True])
NOSE = torch.zeros(3, 1, 4, dtype=torch.bool)
NOSE[:, 0, 1] = True


def test_places_are_called_what_they_are_nearer_to():
    labels = label_locations(FEATURES, IS_FAKE, torch.tensor([True, False, False]), NOSE)
    assert labels.labeled.tolist() == [False, True, True]
    # Anchors at 0 and (90 + 70) / 2 = 80 degrees: forged beyond 40.
    assert labels.cells[:, 0].tolist() == [[False] * 4, [False, True, True, False], [True, True, False, True]]


def test_lengths_of_features_do_not_count():
    scaled = FEATURES.clone()
    scaled[1, :, :, 1] *= 100  # else the first nose would draw the anchor to 90 degrees, and 44 and 41 fall short of 45
    labels = label_locations(scaled, IS_FAKE, torch.tensor([True, False, False]), NOSE)
    assert labels.cells[2, 0].tolist() == [True, True, False, True]


def test_fakes_of_known_mask_neither_get_labels_nor_set_the_anchor():
    labels = label_locations(FEATURES, IS_FAKE, torch.tensor([True, True, False]), NOSE)
    assert labels.labeled.tolist() == [False, False, True]
    # The anchor is at 70 degrees, of the second fake alone: forged beyond 35.
    assert labels.cells[:, 0].tolist() == [[False] * 4, [False] * 4, [True, True, False, True]]
    near = label_locations(FEATURES, IS_FAKE, torch.tensor([True, False, True]), NOSE)
    assert near.cells[1, 0].tolist() == [False, True, True, False]  # at 90 degrees, alone: beyond 45


@pytest.mark.parametrize("missing", ["real images", "noses", "unknown masks"])
def test_without_anchors_nothing_is_labeled(missing):
    is_fake = torch.ones(3, dtype=torch.bool) if missing == "real images" else IS_FAKE
    nose = torch.zeros_like(NOSE) if missing == "noses" else NOSE
    known = torch.full((3,), missing == "unknown masks")
    labels = label_locations(FEATURES, is_fake, known | ~is_fake, nose)
    assert not labels.labeled.any()
    assert not labels.cells.any()


def test_no_gradient_flows_through_labels():
    features = FEATURES.clone().requires_grad_()
    labels = label_locations(features, IS_FAKE, torch.tensor([True, False, False]), NOSE)
    assert not labels.cells.requires_grad


def _row(box, size=(40, 80)) -> dict:
    row = {"image": torch.zeros(3, *size, dtype=torch.uint8)}
    return row if box is None else row | {"nose_box": torch.tensor(box)}


def test_the_nose_on_the_grid():
    # 40 × 80 pixels under 4 × 4 cells: each is 10 high and 20 wide.
    rows = [_row([25.0, 5.0, 41.0, 20.0]), _row([20.0, 10.0, 40.0, 20.0]), _row([90.0, 5.0, 99.0, 9.0])]
    cells = nose_cells(rows, (4, 4), CPU)
    assert cells[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]  # x in 1.25..2.05, y in 0.5..2 cells
    assert cells[1].nonzero().tolist() == [[1, 1]]  # exactly one cell
    assert not cells[2].any()  # beyond the image


def test_without_a_box_the_middle_is_the_nose():
    cells = nose_cells([_row(None)], (19, 10), CPU)
    # 0.4 · 19 = 7.6 to 0.6 · 19 = 11.4; 0.4 · 10 = 4 to 6.
    assert cells[0].any(dim=1).nonzero().flatten().tolist() == [7, 8, 9, 10, 11]
    assert cells[0].any(dim=0).nonzero().flatten().tolist() == [4, 5]
