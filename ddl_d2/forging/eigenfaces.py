"""A linear face autoencoder: faces rebuilt from a few principal components, blurred and ghosted as a swap's are.

Shapes: `S` side of the aligned face, `K` components, `N` faces.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ddl_d2.forging.draw import Draw

# Where brows, eyes, nose and mouth lie in the aligned square, as shares of its side.
_LEFT, _RIGHT, _MOUTH = (0.3, 0.36), (0.7, 0.36), (0.5, 0.76)
# Share of the lost detail that is put back; below 0 none.
_DETAIL = (-0.5, 0.8)
# Components that are kept at least, where there are as many.
_FEWEST = 24.0


class Eigenfaces:
    """Rebuilds a face of an image from the components of many.

    Args:
        mean: float32 of 3·S² values.
        components: float32 K×(3·S²), orthonormal, the strongest first.
        deviations: float32 K, of the faces' coefficients.
    """

    def __init__(self, mean: np.ndarray, components: np.ndarray, deviations: np.ndarray) -> None:
        self.mean, self.components, self.deviations = mean, components, deviations
        self.side = round((len(mean) / 3) ** 0.5)

    @classmethod
    def fitted(cls, faces: Sequence[tuple[np.ndarray, np.ndarray]], *, side: int, count: int) -> Eigenfaces:
        """From (image uint8 H×W×3, landmarks 68×2) of real faces; each is also used mirrored."""
        aligned = []
        for image, points in faces:
            square = cv2.warpAffine(image, alignment(points, side), (side, side), flags=cv2.INTER_AREA)
            aligned += [square.ravel(), np.ascontiguousarray(square[:, ::-1]).ravel()]
        values = np.asarray(aligned, np.float32)
        mean = values.mean(0)
        values -= mean
        # The small Gram matrix has the same eigenvalues as the covariance.
        strengths, mixes = np.linalg.eigh(values @ values.T)
        best = np.argsort(strengths)[::-1][: min(count, len(values) - 1)]
        norms = np.sqrt(np.maximum(strengths[best], 1e-6))
        components = (mixes[:, best].T @ values) / norms[:, None]
        return cls(mean, components.astype(np.float32), (norms / len(values) ** 0.5).astype(np.float32))

    def rebuilt(self, image: np.ndarray, points: np.ndarray, draw: Draw) -> np.ndarray:
        """`image` (uint8 H×W×3) with its face rebuilt from a random number of components, slightly off.

        Some keep a share of what the components lose.
        """
        there = alignment(points, self.side)
        square = cv2.warpAffine(image, there, (self.side, self.side), borderMode=cv2.BORDER_REFLECT)
        most = len(self.components)
        kept = min(most, round(draw.within_log((_FEWEST, max(_FEWEST, most)))))
        basis = self.components[:kept]
        weights = basis @ (square.ravel() - self.mean)
        weights += draw.noise((kept,), draw.within((0.0, 0.25))) * self.deviations[:kept]
        values = self.mean + weights @ basis
        detail = max(0.0, draw.within(_DETAIL))
        if detail > 0:
            values += np.float32(detail) * (square.ravel() - values)
        face = np.clip(values, 0, 255).astype(np.uint8).reshape(square.shape)
        height, width = image.shape[:2]
        return cv2.warpAffine(
            face, there, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )


def alignment(points: np.ndarray, side: int) -> np.ndarray:
    """The similarity (2×3) that brings eyes and mouth of 68 landmarks closest to their places in a square of `side`."""
    start = np.array([points[part].mean(0) for part in (slice(36, 42), slice(42, 48), slice(48, 68))]) @ [1, 1j]
    goal = side * np.array([_LEFT, _RIGHT, _MOUTH]) @ [1, 1j]
    # As complex numbers a similarity is z -> turn * z + shift; this is its least-squares fit.
    spread = start - start.mean()
    turn = np.vdot(spread, goal - goal.mean()) / max(np.vdot(spread, spread).real, 1e-9)
    shift = goal.mean() - turn * start.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
