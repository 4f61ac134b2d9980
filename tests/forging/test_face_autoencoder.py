import numpy as np
import pytest
import torch

from ddl_d2.checkpoint.saving import save_tensors
from ddl_d2.errors import CheckpointError
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.face_autoencoder import AutoencoderTraining, FaceAutoencoder


def _draw(seed: int = 0) -> Draw:
    return Draw(np.random.default_rng(seed))


def _network(**sizes) -> FaceAutoencoder:
    torch.manual_seed(0)
    return FaceAutoencoder(**{"width": 8, "code": 16} | sizes).eval()


def _lost(network: FaceAutoencoder, images: torch.Tensor, kept: int) -> float:
    with torch.no_grad():
        return (network(images, torch.tensor([kept])) - images).abs().mean().item()


def test_it_learns_and_the_first_channels_hold_the_most(astronaut):
    network = _network()
    image = torch.from_numpy(astronaut[:256, 96:352].transpose(2, 0, 1).copy())[None].float() / 255
    before = _lost(network, image, 16)
    training, draw = AutoencoderTraining(network, steps=250, side=48), _draw()
    for _ in range(250):
        training.step([astronaut[:256, 96:352]], draw)
    few, all_of_them = _lost(network, image, 1), _lost(network, image, 16)
    assert all_of_them < few < before
    assert all_of_them < 0.5 * before


def test_outside_the_face_nothing_changes(astronaut, synthetic_face):
    points = synthetic_face(center=(224.0, 115.0), width=95.0).landmarks.astype(np.float32)
    rebuilt = _network().rebuilt(astronaut, points, _draw())
    changed = np.argwhere((rebuilt != astronaut).any(2))
    (left, top), (right, bottom) = points.min(0), points.max(0)
    reach = 0.2 * max(right - left, bottom - top)
    (first_y, first_x), (last_y, last_x) = changed.min(0), changed.max(0)
    assert first_x >= int(left - reach)
    assert first_y >= int(top - reach)
    assert last_x <= right + reach
    assert last_y <= bottom + reach
    assert len(changed) > 0.9 * (right - left) * (bottom - top)


@pytest.mark.parametrize("shape", [(17, 9), (64, 64), (101, 37)])
def test_whole_images_of_any_shape_keep_it(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for longest in (20.0, 70.0):
        assert _network().whole(image, _draw(), longest=longest).shape == image.shape


def test_the_same_draws_give_the_same_face(astronaut):
    network = _network()
    once, again, other = (network.whole(astronaut, _draw(seed), longest=80) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_saved_and_loaded(tmp_path):
    network, path = _network(code=12), str(tmp_path / "a.safetensors")
    save_tensors(path, network.state_dict())
    images = torch.rand(2, 3, 24, 32)
    kept = torch.tensor([12, 3])
    assert torch.equal(FaceAutoencoder.loaded(path)(images, kept), network(images, kept))


def test_other_weights_are_refused(tmp_path):
    path = str(tmp_path / "b.safetensors")
    save_tensors(path, {"something": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="train-autoencoder"):
        FaceAutoencoder.loaded(path)
