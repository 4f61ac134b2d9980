from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from ddl_d2.engine.stopped_step import StoppedStep, from_plain, plain
from ddl_d2.errors import CheckpointError
from ddl_d2.utils.seed import random_state, set_random_state


def make_step(batch):
    return StoppedStep(
        iteration=12,
        rank=1,
        world_size=2,
        what=["loss_map"],
        image_ids=[row["image_id"] for row in batch],
        batch=batch,
        losses={"loss_map": float("nan"), "loss_cls": 0.5},
        model={"weight": torch.ones(2)},
        random_state=random_state(torch.device("cpu")),
        config="VERSION: 2",
        precision="bfloat16",
    )


def test_a_batch_comes_back_through_the_safe_loader(make_row, tmp_path):
    row = make_row(3, size=(8, 12))
    row["instances"].gt_boxes = Boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    row |= {"path": Path("a/b"), "soft_mask": np.eye(3, dtype=np.float32), "area": np.float32(0.5), "sizes": (3, [4])}
    row["image"] = torch.zeros(100, 3, 8, 12, dtype=torch.uint8)[0]  # a view: the rest is not to be written
    path = make_step([row]).write(tmp_path / "failures")
    assert path == tmp_path / "failures/iter_12_rank1.pth"
    assert path.stat().st_size < 30_000
    content = torch.load(path, weights_only=True)  # nothing but tensors and plain values
    assert content["batch"][0]["path"] == "a/b"
    step = StoppedStep.load(path)
    assert np.isnan(step.losses.pop("loss_map"))
    assert (step.losses, step.iteration, step.precision) == ({"loss_cls": 0.5}, 12, "bfloat16")
    again = step.batch[0]
    assert torch.equal(again["image"], row["image"])
    assert (again["area"], again["sizes"], again["is_fake"]) == (0.5, (3, [4]), 1)
    assert torch.equal(again["soft_mask"], torch.eye(3))
    instances = again["instances"]
    assert isinstance(instances, Instances)
    assert instances.image_size == (8, 12)
    assert isinstance(instances.gt_masks, BitMasks)
    assert torch.equal(instances.gt_masks.tensor, row["instances"].gt_masks.tensor)
    assert torch.equal(instances.gt_boxes.tensor, row["instances"].gt_boxes.tensor)


def test_plain_values_are_as_they_were():
    value = {"a": [1, 2.5, True, None, "x"], "b": ({"c": ()},)}
    assert plain(value) == value
    assert from_plain(plain(value)) == value


def test_random_numbers_are_drawn_again():
    state = random_state(torch.device("cpu"))
    first = torch.rand(3)
    assert set_random_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(3), first)
    # Those of a GPU cannot be drawn on a CPU.
    assert not set_random_state(state | {"cuda": torch.zeros(16, dtype=torch.uint8)}, torch.device("cpu"))


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"model": {"weight": torch.ones(1)}}, path)
    with pytest.raises(CheckpointError, match=r"model\.pth: not a stopped training step \(it has no iteration, rank"):
        StoppedStep.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable weights file"):
        StoppedStep.load(path)


def test_a_file_that_cannot_be_written_is_only_logged(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert make_step([]).write(tmp_path / "file") is None
    assert "not kept" in caplog.text
