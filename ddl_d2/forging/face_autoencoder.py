"""A small convolutional autoencoder: faces rebuilt by it lose what a swap's network loses.

Encoder and decoder are those of the first face-swapping programs in small: strided convolutions down, convolution and
pixel shuffle up. Its code is spatial, an eighth of the image's sides, so it rebuilds faces of any size and whole
images. The channels of the code are ordered by nested dropout (Rippel et al., ICML 2014): the first ones hold the most,
so one network rebuilds from coarse to nearly exact.

Shapes: `N` images, `H, W` pixels, multiples of 8; `K` channels of the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddl_d2.errors import CheckpointError
from ddl_d2.forging.draw import Draw
from ddl_d2.forging.swap_source import face_width
from ddl_d2.io.weights import load_tensors

STRIDE = 8
# Kept around the landmarks' box when a face is rebuilt, as a share of its sides.
_MARGIN = 0.2
# Longest side at which a face goes through the network, pixels.
_SIDES = (56.0, 144.0)
# Channels of the code that are kept at least.
_FEWEST = 4.0
# Share of the lost detail that is put back; below 0 none.
_DETAIL = (-0.5, 0.7)


class FaceAutoencoder(nn.Module):
    """Rebuilds images from a code of few numbers.

    Args:
        width: channels at half the sides; doubled twice.
        code: K, channels of the code.
    """

    def __init__(self, *, width: int = 24, code: int = 32) -> None:
        super().__init__()
        self.width, self.code = width, code
        self.encoder = nn.Sequential(
            _down(3, width), _down(width, 2 * width), _down(2 * width, 4 * width), nn.Conv2d(4 * width, code, 1)
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code, 4 * width, 3, padding=1),
            nn.LeakyReLU(0.1),
            _up(4 * width, 4 * width),
            _up(4 * width, 2 * width),
            _up(2 * width, width),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    @classmethod
    def loaded(cls, path: str | Path) -> FaceAutoencoder:
        """Read the file that `ddl-d2 train-autoencoder` wrote.

        Raises:
            CheckpointError: it cannot be read, or is of something else.
        """
        weights = load_tensors(path)
        code, first = weights.get("encoder.3.weight"), weights.get("encoder.0.0.weight")
        if code is None or first is None:
            raise CheckpointError(
                f"{path}: not the weights of a face autoencoder (`ddl-d2 train-autoencoder` makes them)"
            )
        network = cls(width=len(first), code=len(code))
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: not the weights of a face autoencoder ({error})") from error
        return network.eval()

    def forward(self, images: Tensor, kept: Tensor) -> Tensor:
        """Rebuild images.

        Args:
            images: float N×3×H×W in [0, 1].
            kept: int N, how many channels of each one's code are used.

        Returns:
            float N×3×H×W, about [0, 1].
        """
        code = self.encoder(images - 0.5)
        places = torch.arange(self.code, device=code.device)
        return self.decoder(code * (places < kept[:, None])[:, :, None, None]) + 0.5

    @torch.no_grad()
    def rebuilt(self, image: np.ndarray, points: np.ndarray, draw: Draw) -> np.ndarray:
        """`image` (uint8 H×W×3) with what is about its landmarks (68×2) rebuilt at a random size from a random code.

        Some keep a share of what the network loses.
        """
        (left, top), (right, bottom) = points.min(0), points.max(0)
        reach = _MARGIN * max(right - left, bottom - top)
        x0, y0 = max(0, int(left - reach)), max(0, int(top - reach))
        window = image[y0 : int(bottom + reach), x0 : int(right + reach)]
        face = self.whole(window, draw, longest=min(draw.within_log(_SIDES), 2.0 * face_width(points)))
        result = image.copy()
        result[y0 : y0 + face.shape[0], x0 : x0 + face.shape[1]] = face
        return result

    @torch.no_grad()
    def whole(self, image: np.ndarray, draw: Draw, *, longest: float) -> np.ndarray:
        """Rebuild all of an image (uint8 H×W×3) from a random code, at `longest` pixels of its longest side."""
        height, width = image.shape[:2]
        ratio = longest / max(height, width)
        size = (_multiple(width * ratio), _multiple(height * ratio))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
        kept = torch.tensor([round(draw.within_log((_FEWEST, float(self.code))))])
        images = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255
        values = self(images, kept)[0].permute(1, 2, 0).numpy() * np.float32(255)
        detail = max(0.0, draw.within(_DETAIL))
        if detail > 0:
            values += np.float32(detail) * (small - values)
        back = np.clip(values, 0, 255).astype(np.uint8)
        return cv2.resize(back, (width, height), interpolation=cv2.INTER_CUBIC if ratio < 1 else cv2.INTER_AREA)


def _multiple(length: float) -> int:
    return max(3 * STRIDE, round(length / STRIDE) * STRIDE)


def _down(channels: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, out, 4, stride=2, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(out, out, 3, padding=1),
        nn.LeakyReLU(0.1),
    )


def _up(channels: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4 * out, 3, padding=1), nn.LeakyReLU(0.1), nn.PixelShuffle(2))


class AutoencoderTraining:
    """Trains a `FaceAutoencoder` on windows of photographs.

    The input is bent a little and the goal is not, as in the programs that swap faces: the network learns to draw a
    face and not to copy pixels.

    Args:
        network: trained in place.
        steps: of the whole training.
        batch: N, images a step.
        side: of the windows, pixels; a multiple of 8.
        rate: the largest learning rate; it falls to zero along half a cosine.
    """

    def __init__(
        self, network: FaceAutoencoder, *, steps: int, batch: int = 8, side: int = 80, rate: float = 2e-3
    ) -> None:
        self.network, self.batch, self.side = network, batch, side
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, rate, total_steps=steps, pct_start=0.05)

    def step(self, photos: Sequence[np.ndarray], draw: Draw) -> float:
        """Train on a batch of windows (uint8 H×W×3, any sizes) drawn from photographs; returns the loss."""
        pairs = [_window(draw.one_of(photos), self.side, draw) for _ in range(self.batch)]
        given, goal = (
            torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 for images in zip(*pairs, strict=True)
        )
        most = float(self.network.code)
        kept = torch.tensor([round(draw.within_log((_FEWEST - 1, most))) for _ in range(self.batch)])
        result = self.network(given, kept)
        loss = F.l1_loss(result, goal) + sum(F.l1_loss(a, b) for a, b in zip(_edges(result), _edges(goal), strict=True))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def _edges(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]


def _window(photo: np.ndarray, side: int, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A square window of a photograph, of a third to all of it; bent, and as it is (uint8 side×side×3)."""
    height, width = photo.shape[:2]
    edge = max(8, round(min(height, width) * draw.within((0.35, 1.0))))
    x, y = round(draw.within((0, width - edge))), round(draw.within((0, height - edge)))
    goal = cv2.resize(photo[y : y + edge, x : x + edge], (side, side), interpolation=cv2.INTER_AREA)
    if draw.chance(0.5):
        goal = np.ascontiguousarray(goal[:, ::-1])
    moves = cv2.resize(
        draw.noise((5, 5, 2), side * draw.within((0.0, 0.02))), (side, side), interpolation=cv2.INTER_CUBIC
    )
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).astype(np.float32) + moves
    bent = cv2.remap(goal, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return bent, goal
