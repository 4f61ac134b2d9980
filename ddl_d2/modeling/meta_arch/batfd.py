"""System S5's network: BA-TFD and BA-TFD+, which tell the forged seconds of a clip, in picture and sound.

Sources: Cai et al. 2022, "Do You Really Mean That?" (BA-TFD); Cai et al. 2023, "Glitch in the Matrix" (BA-TFD+). Names
of parameters are those of the published checkpoints.

Rows, and what a batch teaches: `modeling.batfd.clip_batch`. In eval mode, one dict for each clip:

    fake_score      float in [0, 1], the probability that the clip is fake
    segments        float64 K×3, [confidence, start, end] in seconds, by falling confidence
    frame_scores    {"video", "audio"}: float32 num_frames in [0, 1], the probability that a frame is forged; without
                    "audio" where the clip has no sound

Shapes: `B` clips, `T` frames of the network, `D` durations (rows of a map), `F` features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from ddl_d2.layers.boundary_matching import BoundaryMatching
from ddl_d2.layers.linear import use_fast_linear
from ddl_d2.modeling.batfd.boundary_curves import BoundaryCurves, BoundaryOutputs, boundary_weights, weighted_candidates
from ddl_d2.modeling.batfd.boundary_maps import BoundaryModule, FrameClassifier, mean_map
from ddl_d2.modeling.batfd.build import ClipModelOptions, build_abnormality, build_audio_encoder, build_video_encoder
from ddl_d2.modeling.batfd.clip_batch import (
    GROUPS,
    MODALITIES,
    ClipFit,
    ClipTruth,
    Row,
    clip_truth,
    has_sound,
    is_known,
)
from ddl_d2.modeling.batfd.decoding import DecodeOptions, candidates_of_map
from ddl_d2.modeling.batfd.dilated import DilatedBranches
from ddl_d2.modeling.batfd.losses import boundary_losses, contrast_loss, frame_loss, map_loss
from ddl_d2.modeling.batfd.map_fusion import MapFusion
from ddl_d2.modeling.batfd.point_head import PointHead, candidates_of_points, point_targets, voted
from ddl_d2.modeling.batfd.targets import stretched
from ddl_d2.modeling.batfd.umma import Abnormality, UmmaOutputs, reconstruction_loss, score_loss
from ddl_d2.modeling.batfd.windows import WindowPrediction, merged, window_starts, windows_of
from ddl_d2.modeling.whole_batch import count_per_part

_FUSIONS = {"p": "prb_fusion_p", "c": "prb_fusion_c", "pc": "prb_fusion_p_c", "map": "fusion"}
"""The published name of what fuses each kind of map."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the encoders give for a batch, by modality ("video", "audio").

    Attributes:
        features: float B×F×T.
        logits: float B×1×T, of "this frame is forged".
        seen: float B×(F+1)×T, both; what the maps are made of.
        umma: what UMMAFormer's parts give, if there are any.
    """

    features: dict[str, Tensor]
    logits: dict[str, Tensor]
    seen: dict[str, Tensor]
    umma: UmmaOutputs | None = None


@META_ARCH_REGISTRY.register()
class BATFD(nn.Module):
    """Encoders of picture and sound, maps of proposals of each, and their fusion.

    Losses, weighted: `loss_fusion_map`, `loss_video_map`, `loss_audio_map`, `loss_video_frames`, `loss_audio_frames`,
    `loss_contrast`; with the boundary generator `loss_fusion_curves`, `loss_video_curves`, `loss_audio_curves`; with
    UMMAFormer's parts `loss_reconstruction`, `loss_reconstruction_score`, and with its head `loss_points` instead of
    those of maps. A clip whose segments are not known has no part in those of maps, points and frames, one without
    sound none in those of the sound.
    """

    @configurable
    def __init__(
        self,
        *,
        video_encoder: nn.Module,
        audio_encoder: nn.Module,
        features: int,
        points: int,
        extension: float,
        boundary_dims: tuple[int, int],
        relation_block: bool,
        dilations: list[int],
        dilated_depth: int,
        abnormality: Abnormality | None = None,
        point_head: PointHead | None = None,
        options: ClipModelOptions,
        decode: DecodeOptions,
    ) -> None:
        """Put the parts together.

        Args:
            video_encoder: B×3×T×S×S -> B×F×T; its `size` is S, or 0 if it takes any.
            audio_encoder: B×64×4T -> B×F×T.
            features: F.
            points: that are sampled of a proposal.
            extension: the context on each side of a proposal, as a share of its length.
            boundary_dims: channels of a proposal, and of a cell of the map behind it.
            relation_block: BA-TFD+'s proposal relation block; without it the model is BA-TFD.
            dilations: of the branches of `DilatedBranches`; none: there are none.
            dilated_depth: how many of these follow each other.
            abnormality: UMMAFormer's parts; None: there are none.
            point_head: finds segments in the pyramid of `abnormality`; None: they are read from maps.
            options: see `ClipModelOptions`.
            decode: see `DecodeOptions`.
        """
        super().__init__()
        self.options, self.decode = options, decode
        self.fit = ClipFit(frames=options.frames, size=int(video_encoder.size), fit=options.fit)  # type: ignore[arg-type]
        self.durations = list(options.durations)
        self.video_encoder, self.audio_encoder = video_encoder, audio_encoder
        depth = dilated_depth if dilations else 0
        self.video_dilated, self.audio_dilated = (
            nn.Sequential(*(DilatedBranches(features=features, dilations=dilations) for _ in range(depth)))
            for _ in MODALITIES
        )
        self.umma = abnormality
        self.video_frame_classifier, self.audio_frame_classifier = (FrameClassifier(features) for _ in MODALITIES)
        self.point_head = point_head
        if point_head is None:
            self._add_map_head(features + 1, points, extension, boundary_dims, relation_block)
        use_fast_linear(self)

    def _add_map_head(
        self, features: int, points: int, extension: float, dims: tuple[int, int], relation_block: bool
    ) -> None:
        """Add what makes maps of proposals; `features`: of a frame, its logit among them."""
        options = self.options
        matching = BoundaryMatching(
            frames=options.frames,
            durations=self.durations,
            points=points,
            extension=extension,
            published=options.published,
        )
        for modality in MODALITIES:
            module = BoundaryModule(
                features=features, matching=matching, dims=dims, relation=relation_block, published=options.published
            )
            self.add_module(f"{modality}_boundary_module", module)
            if options.curve_weight:
                self.add_module(f"{modality}_comp_boundary_generator", BoundaryCurves(features))
        for kind, name in _FUSIONS.items():
            if relation_block == (kind != "map"):
                rows = len(self.durations)
                self.add_module(name, MapFusion(rows=rows, video_features=features, audio_features=features))
        for name in ("cbg_fusion_start", "cbg_fusion_end") if options.curve_weight else ():
            self.add_module(name, MapFusion(rows=1, video_features=features, audio_features=features))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.BATFD and TEST.TEMPORAL."""
        keys = cfg.MODEL.BATFD
        abnormality = build_abnormality(cfg)
        return {
            "video_encoder": build_video_encoder(cfg),
            "audio_encoder": build_audio_encoder(cfg),
            "features": keys.FEATURE_DIM,
            "points": keys.SAMPLES,
            "extension": keys.EXTENSION,
            "boundary_dims": tuple(keys.BOUNDARY_DIMS),
            "relation_block": keys.RELATION_BLOCK,
            "dilations": list(keys.ERF.DILATIONS),
            "dilated_depth": keys.ERF.DEPTH,
            "abnormality": abnormality,
            "point_head": PointHead(cfg.MODEL.UMMA.DIM) if keys.HEAD == "points" else None,
            "options": ClipModelOptions.from_config(cfg),
            "decode": DecodeOptions.from_config(cfg),
        }

    @property
    def device(self) -> torch.device:
        """Where the system computes."""
        return next(self.parameters()).device

    def forward(self, batched_inputs: list[Row]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return the losses of a batch of rows in training mode, their predictions in eval mode; see the module."""
        if self.training:
            return self.losses(batched_inputs)
        with torch.no_grad():
            return [self.prediction(row) for row in batched_inputs]

    def encode(self, video: Tensor, log_mel: Tensor, valid: Tensor) -> Encoded:
        """Run the encoders and the frame classifiers.

        Args:
            video: float B×3×T×S×S.
            log_mel: float B×64×4T.
            valid: float B×T, 1 on the frames of the clip.
        """
        video, audio = self.video_dilated(self.video_encoder(video)), self.audio_dilated(self.audio_encoder(log_mel))
        umma = None
        if self.umma is not None:
            video, audio, umma = self.umma(video, audio, valid)
        features = {"video": video, "audio": audio}
        logits = {"video": self.video_frame_classifier(video), "audio": self.audio_frame_classifier(audio)}
        seen = {m: torch.cat([x, logits[m]], dim=1) for m, x in features.items()}
        return Encoded(features=features, logits=logits, seen=seen, umma=umma)

    def maps(self, encoded: Encoded) -> dict[str, dict[str, Tensor]]:
        """Return the maps of proposals, {group: {kind: B×D×T in [0, 1]}}."""
        seen = encoded.seen
        maps = {m: self.get_submodule(f"{m}_boundary_module")(x) for m, x in seen.items()}
        fused = {
            kind: self.get_submodule(_FUSIONS[kind])(seen["video"], seen["audio"], video_map, maps["audio"][kind])
            for kind, video_map in maps["video"].items()
        }
        return maps | {"fusion": fused}

    def curves(self, encoded: Encoded) -> BoundaryOutputs:
        """Run the boundary generators."""
        seen = encoded.seen
        made = {m: self.get_submodule(f"{m}_comp_boundary_generator")(x) for m, x in seen.items()}
        curves = {m: (start, end) for m, (start, end, _) in made.items()}
        start, end = (
            self.get_submodule(f"cbg_fusion_{side}")(
                seen["video"], seen["audio"], curves["video"][i][:, None], curves["audio"][i][:, None]
            )[:, 0]
            for i, side in enumerate(("start", "end"))
        )
        return BoundaryOutputs(
            curves=curves | {"fusion": (start, end)}, hidden={m: hidden for m, (_, _, hidden) in made.items()}
        )

    def losses(self, rows: list[Row]) -> dict[str, Tensor]:
        """Return the named, weighted losses of a batch of rows."""
        options = self.options
        video, log_mel = self.fit.batch(rows, self.device)
        truth = clip_truth(rows, self.fit, self.durations, with_curves=options.curve_weight > 0, device=self.device)
        encoded = self.encode(video, log_mel, truth.valid)
        shares = {group: truth.known[group] / count_per_part(rows, partial(is_known, group=group)) for group in GROUPS}
        losses = {}
        for modality in MODALITIES:
            loss = frame_loss(encoded.logits[modality], truth.labels[modality], truth.valid, shares[modality])
            losses[f"loss_{modality}_frames"] = options.frame_weight / 2 * loss
        if options.contrast_weight:
            losses["loss_contrast"] = options.contrast_weight * self._contrast(rows, encoded, truth)
        if encoded.umma is not None:
            losses |= self._umma_losses(rows, encoded.umma, truth)
        if self.point_head is not None:
            return losses
        weights = {"fusion": 1.0} | dict.fromkeys(MODALITIES, options.modality_weight / 2)
        for group, maps in self.maps(encoded).items():
            loss = map_loss(maps, truth.maps[group], truth.valid, shares[group])
            losses[f"loss_{group}_map"] = weights[group] * loss
        if options.curve_weight:
            found = boundary_losses(
                self.curves(encoded),
                self.curves(self._backward(video, log_mel, truth.valid)),
                truth,
                shares,
                feature_weight=options.curve_weight,
            )
            losses |= {f"loss_{group}_curves": weights[group] * loss for group, loss in found.items()}
        return losses

    def _backward(self, video: Tensor, log_mel: Tensor, valid: Tensor) -> Encoded:
        """Encode clips played backward, padding first."""
        return self.encode(*(torch.flip(x, dims=(axis,)) for x, axis in ((video, 2), (log_mel, 2), (valid, 1))))

    def _umma_losses(self, rows: list[Row], seen: UmmaOutputs, truth: ClipTruth) -> dict[str, Tensor]:
        options = self.options
        losses = {
            "loss_reconstruction": options.reconstruction_weight
            * reconstruction_loss(seen.features, seen.reconstruction, truth.real),
            "loss_reconstruction_score": options.score_weight * score_loss(seen.logits, truth.real),
        }
        if self.point_head is not None:
            forged = [i for i, row in enumerate(rows) if row["is_fake"] and is_known(row, "fusion")]
            logits, offsets = self.point_head(seen.levels, seen.masks)
            valid = torch.cat([mask[:, 0] for mask in seen.masks], dim=1)
            targets = [point_targets(self.fit.segments(rows[i]), seen.levels[0].shape[2]) for i in forged]
            losses["loss_points"] = self.point_head.losses(logits[forged], offsets[forged], targets, valid[forged])
        return losses

    def _contrast(self, rows: list[Row], encoded: Encoded, truth: ClipTruth) -> Tensor:
        heard = torch.tensor([has_sound(row) for row in rows], device=self.device)
        return contrast_loss(
            encoded.features["video"],
            encoded.features["audio"],
            truth.valid,
            truth.real,
            heard / count_per_part(rows, has_sound),
            margin=self.options.contrast_margin,
            scaling=self.options.contrast_scaling,
        )

    def prediction(self, row: Row) -> dict[str, Any]:
        """Return what the network says of one clip, however long: see the module. Called without gradients."""
        frames, width = int(row["num_frames"]), self.options.frames
        if self.options.fit == "stretch" or frames <= width:
            return self._finished(row, self._window(row))
        starts = window_starts(frames, width, self.decode.window_overlap)
        return self._finished(row, merged([self._window(r) for r in windows_of(row, starts, width)], starts, frames))

    def _window(self, row: Row) -> WindowPrediction:
        """Predict what the network sees at once; candidates and curves in frames of the row."""
        video, log_mel = self.fit.batch([row], self.device)
        valid = self.fit.valid([row], self.device)
        encoded = self.encode(video, log_mel, valid)
        modalities = MODALITIES if has_sound(row) else MODALITIES[:1]
        used, frames = self.fit.used_frames(row), int(row["num_frames"])
        if self.point_head is not None and encoded.umma is not None:
            logits, offsets = self.point_head(encoded.umma.levels, encoded.umma.masks)
            candidates = candidates_of_points(logits[0], offsets[0], used)
        else:
            # Without sound there is nothing to fuse.
            group = self.decode.modality if has_sound(row) else "video"
            fused = mean_map(self.maps(encoded)[group])[0].float().cpu().numpy()
            candidates = candidates_of_map(fused, self.durations, used, decode=self.decode.decode)
            if self.options.curve_weight:
                backward = self.curves(self._backward(video, log_mel, valid))
                weights = boundary_weights(self.curves(encoded).curves[group], backward.curves[group])
                candidates = weighted_candidates(candidates, weights, clip=0)
        candidates[:, 1:] *= frames / used
        curves = {m: encoded.logits[m][0, 0].float().sigmoid().cpu()[:used] for m in modalities}
        if used != frames:
            curves = {m: torch.from_numpy(stretched(curve.numpy(), frames)) for m, curve in curves.items()}
        return WindowPrediction(candidates=candidates, frame_scores=curves)

    def _finished(self, row: Row, found: WindowPrediction) -> dict[str, Any]:
        seconds = 1 / float(row["fps"])
        segments = self.decode.suppressed(found.candidates, seconds)
        if self.point_head is not None:
            segments = voted(segments, found.candidates)
        segments[:, 1:] *= seconds
        best = float(segments[0, 0]) if len(segments) else 0.0
        if self.decode.clip_score == "frames":
            best = max(float(curve.max()) for curve in found.frame_scores.values())
        return {"fake_score": best, "segments": torch.from_numpy(segments), "frame_scores": found.frame_scores}
