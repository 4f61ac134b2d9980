"""System S4, Loupe: a patch-aware classifier, and a segmentor that is told what the classifier thinks.

Source: the entry that won the IJCAI 2025 challenge on detection and localization, as its released code has it (May
2025). An encoder turns an image into `Tokens`; everything else reads these alone, so that tokens of a frozen encoder
can be computed once. Names of published weights: `checkpoint/loupe_names.py`.

Shapes: `B` images, `S` the side in pixels to which every image is stretched, `C` channels, `Q` queries, `h, w` cells of
the tokens' grid.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Instances
from torch import Tensor, nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.backbone.tokens import TokenBackbone, Tokens, build_token_backbone
from ddl_d2.modeling.heads import ImageSizes
from ddl_d2.modeling.losses import mean_of_known, poly_focal
from ddl_d2.modeling.loupe.classifier import ClassLogits, PatchAwareClassifier
from ddl_d2.modeling.loupe.pyramid import SimplePyramid
from ddl_d2.modeling.loupe.segmentor import Condition, LoupeSegmentor
from ddl_d2.modeling.loupe.targets import PseudoLabels, patch_labels, query_targets
from ddl_d2.modeling.mask2former.build import build_criterion
from ddl_d2.modeling.mask2former.criterion import BatchCounts, SetCriterion, Targets
from ddl_d2.modeling.mask2former.head import QueryDecoderHead
from ddl_d2.modeling.mask2former.painting import painted_at_once, query_outputs
from ddl_d2.modeling.mask2former.query_decoder import QueryPredictions
from ddl_d2.modeling.postprocessing import original_size
from ddl_d2.modeling.preprocessing import fake_labels, is_known, known_maps, stretched_batch
from ddl_d2.modeling.system import ForgerySystem, Probabilities, SystemOptions
from ddl_d2.modeling.whole_batch import count_per_part, whole_batch
from ddl_d2.utils.transfer import on_device


@META_ARCH_REGISTRY.register()
class Loupe(ForgerySystem):
    """Detector by classifier, localizer by segmentor, trained apart and then together.

    Losses: of the classifier `loss_image` and `loss_patch` (poly-focal; patches of real images are authentic), of the
    segmentor the criterion's. A part that is frozen as a whole (SOLVER.FREEZE) has no losses.

    Without a segmentor the map is that of the patches. There are no `image_logits`: a heat map (`inference/gradcam.py`)
    is laid over images that were padded, not stretched, and is refused.
    """

    backbone: TokenBackbone

    @configurable
    def __init__(
        self,
        *,
        backbone: TokenBackbone,
        classifier: PatchAwareClassifier,
        segmentor: LoupeSegmentor | None,
        criterion: SetCriterion | None,
        input_size: int,
        map_size: int,
        class_weight: float,
        map_weight: float,
        image_alpha: float,
        patch_alpha: float,
        focal_gamma: float,
        focal_epsilon: float,
        condition_train: str,
        condition_test: str,
        adapt_above: float | None = None,
        options: SystemOptions,
    ) -> None:
        """Put the parts together.

        Args:
            backbone: gives tokens of S×S images.
            classifier: of these tokens.
            segmentor: None: the system is its classifier (stage 1).
            criterion: of the queries; needed for training with a `segmentor`.
            input_size: S.
            map_size: side of the square on which the queries are painted, before it is resized to the image.
            class_weight: of the classifier's losses.
            map_weight: of the criterion's losses.
            image_alpha: weight of fake images in `loss_image`, see `losses.poly_focal`.
            patch_alpha: weight of forged patches in `loss_patch`.
            focal_gamma: of both.
            focal_epsilon: of both.
            condition_train: what the segmentor is told in training: "truth" or "score".
            condition_test: and in testing: "score", "fake" or "truth".
            adapt_above: the score above which an image has a target in test-time adaptation, which is then what
                training is: its losses are `adaptation_losses`. None: training learns from labels.
            options: what every system takes.

        Raises:
            ConfigError: maps cannot be painted at that size.
        """
        super().__init__(backbone=backbone, options=options)
        side = 4 * backbone.grid[0]
        if segmentor is not None and (map_size < side or map_size % side):
            raise ConfigError(f"MODEL.LOUPE.MAP_SIZE is {map_size}: masks have a side of {side}, so a multiple of it")
        self.classifier = classifier
        self.segmentor = segmentor
        self.criterion = criterion
        self.size = (input_size, input_size)
        self.map_size = (map_size, map_size)
        self.class_weight, self.map_weight = class_weight, map_weight
        self.image_alpha, self.patch_alpha = image_alpha, patch_alpha
        self.focal_gamma, self.focal_epsilon = focal_gamma, focal_epsilon
        self.condition_train, self.condition_test = condition_train, condition_test
        self.adapt_above = adapt_above
        self.use_fast_layers(segmentor.pyramid if segmentor is not None else None)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments from MODEL.LOUPE, MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER."""
        if not cfg.MODEL.DETECTION.ENABLED:
            raise ConfigError(
                "Loupe always classifies: leave MODEL.DETECTION.ENABLED True, and freeze what shall not be trained "
                "(SOLVER.FREEZE ['backbone', 'classifier'])"
            )
        loupe = cfg.MODEL.LOUPE
        backbone = build_token_backbone(cfg)
        classifier = PatchAwareClassifier(
            channels=backbone.channels,
            num_patches=backbone.grid[0] * backbone.grid[1],
            hidden_ratio=loupe.HIDDEN_RATIO,
            patch_head=loupe.PATCH_HEAD,
        )
        segmentor = criterion = None
        if cfg.MODEL.LOCALIZATION.ENABLED:
            pyramid = SimplePyramid(channels=backbone.channels)
            head = QueryDecoderHead(cfg, pyramid.output_shape(), conditional=loupe.CONDITION)
            condition = Condition(dim=cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM) if loupe.CONDITION else None
            segmentor = LoupeSegmentor(pyramid=pyramid, head=head, condition=condition)
            criterion = build_criterion(cfg)
        return {
            "backbone": backbone,
            "classifier": classifier,
            "segmentor": segmentor,
            "criterion": criterion,
            "input_size": loupe.INPUT_SIZE,
            "map_size": loupe.MAP_SIZE,
            "class_weight": cfg.MODEL.DETECTION.LOSS_WEIGHT,
            "map_weight": cfg.MODEL.LOCALIZATION.LOSS_WEIGHT,
            "image_alpha": loupe.IMAGE_ALPHA,
            "patch_alpha": loupe.PATCH_ALPHA,
            "focal_gamma": loupe.FOCAL_GAMMA,
            "focal_epsilon": loupe.FOCAL_EPSILON,
            "condition_train": loupe.CONDITION_TRAIN,
            "condition_test": loupe.CONDITION_TEST,
            "adapt_above": cfg.TEST.ADAPT.THRESHOLD if cfg.TEST.ADAPT.ENABLED else None,
            "options": SystemOptions.from_config(cfg),
        }

    def losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses from `image`, `is_fake`, `soft_mask` or else `forgery_mask`, and `instances`."""
        tokens = self.tokens(batched_inputs)
        if self.adapt_above is not None:
            return self.adaptation_losses(tokens, batched_inputs, self.adapt_above)
        return self.losses_of(tokens, batched_inputs)

    def predictions(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict score and map."""
        return self.predictions_of(self.tokens(batched_inputs), batched_inputs)

    def probabilities(self, images: Tensor, sizes: ImageSizes) -> Probabilities:
        """Predict score and map of a batch, as `predictions_of` but without instances.

        Raises:
            ConfigError: nothing here gives a map, or the segmentor is to be told the truth.
        """
        tokens: Tokens = self.encode(images)
        logits = self.classifier(tokens)
        scores = logits.image.sigmoid()
        if self.segmentor is None:
            return Probabilities(scores, self._patch_maps(logits, tokens))
        queries = self.segmentor(tokens, self._testing_condition(scores, [{}]))
        return Probabilities(scores, *painted_at_once(queries.masks(), queries.logits[-1], self.map_size))

    def _patch_maps(self, logits: ClassLogits, tokens: Tokens) -> Tensor:
        """Resize the patches' probabilities to B×S×S; raises ConfigError where there are none."""
        if logits.patches is None:
            raise ConfigError("MODEL.LOUPE.PATCH_HEAD is False and there is no segmentor: this model has no map")
        patches = logits.patches.sigmoid().unflatten(1, tokens.grid)[:, None]
        return F.interpolate(patches, self.size, mode="bilinear", align_corners=False)[:, 0]

    def tokens(self, batched_inputs: list[dict[str, Any]]) -> Tokens:
        """Stretch the rows' images and encode them; of rows that bring their `tokens` (a cache's), take these."""
        if "tokens" in batched_inputs[0]:
            return Tokens.of_rows(batched_inputs, self.backbone.grid, self.device)
        images = stretched_batch(batched_inputs, self.size, self.pixel_mean, self.pixel_std)
        tokens: Tokens = self.encode(images)
        return tokens

    def losses_of(self, tokens: Tokens, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the losses of images that are encoded already; of the rows, all but `image` is read."""
        losses: dict[str, Tensor] = {}
        logits = self.classifier(tokens)
        if _is_trained(self.classifier):
            losses |= self._class_losses(logits, tokens, rows)
        if self.segmentor is not None and _is_trained(self.segmentor):
            whole_rows, parts = whole_batch(rows)
            whole = BatchCounts(
                [(len(row["instances"]) if is_known(row) else 0, is_known(row) > 0) for row in whole_rows], parts
            )
            targets = query_targets(rows, self.size, self.device)
            if self.condition_train == "score":
                fake = logits.image.sigmoid().detach()
            else:
                fake = on_device([float(len(row["instances"]) > 0) for row in rows], self.device)
            losses |= self.segmentation_losses(tokens, fake, targets, whole)
        return losses

    def segmentation_losses(
        self, tokens: Tokens, fake: Tensor, targets: list[Targets], whole: BatchCounts | None = None
    ) -> dict[str, Tensor]:
        """Compute the segmentor's weighted losses against given targets.

        Args:
            tokens: of the images.
            fake: what the segmentor is told of each, float B in [0, 1].
            targets: of each; masks may be soft, and of any size.
            whole: of the batch that the images are a part of; None: they are all of it.

        Raises:
            ConfigError: there is no segmentor.
        """
        segmentor, criterion = self._localizer()
        losses = criterion(segmentor(tokens, fake), targets, whole)
        return {name: self.map_weight * loss for name, loss in losses.items()}

    @torch.no_grad()
    def pseudo_labels(self, tokens: Tokens, threshold: float = 0.5) -> PseudoLabels:
        """Say what the classifier thinks of images, as labels for the segmentor (Loupe's test-time adaptation).

        Args:
            tokens: of the images.
            threshold: an image has a target where its score is strictly greater.

        Raises:
            ConfigError: the classifier predicts no patches.
        """
        logits = self.classifier(tokens)
        if logits.patches is None:
            raise ConfigError("MODEL.LOUPE.PATCH_HEAD is False: without patches there are no pseudo-labels of pixels")
        score = logits.image.sigmoid()
        return PseudoLabels(score, logits.patches.sigmoid().unflatten(1, tokens.grid), score > threshold)

    def adaptation_losses(self, tokens: Tokens, rows: list[dict[str, Any]], threshold: float) -> dict[str, Tensor]:
        """Compute the segmentor's losses against the classifier's own `pseudo_labels`; of the rows, no label is read.

        Args:
            tokens: of the images.
            rows: say which they are.
            threshold: see `pseudo_labels`.
        """
        labels = self.pseudo_labels(tokens, threshold)
        names = [str(row.get("image_id", row.get("file_name", "?"))) for row in rows]
        return self.segmentation_losses(tokens, labels.condition, labels.targets(names))

    def predictions_of(self, tokens: Tokens, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict score and map of images that are encoded already; of the rows, sizes (and labels) are read."""
        logits = self.classifier(tokens)
        scores = logits.image.sigmoid()
        with torch.autocast(self.device.type, enabled=False):
            if self.segmentor is None:
                return self._classifier_outputs(logits, tokens, rows)
        queries = self.segmentor(tokens, self._testing_condition(scores, rows))
        with torch.autocast(self.device.type, enabled=False):
            return self._outputs(queries, scores.tolist(), rows)

    def _class_losses(self, logits: ClassLogits, tokens: Tokens, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        focal = {"gamma": self.focal_gamma, "epsilon": self.focal_epsilon}
        labels = fake_labels(rows, self.device).float()
        image = poly_focal(logits.image[:, None], labels[:, None], alpha=self.image_alpha, **focal)
        losses = {"loss_image": self.class_weight * image.mean()}
        if logits.patches is not None:
            truth = patch_labels(rows, self.size, tokens.grid, self.device)
            patches = poly_focal(logits.patches, truth, alpha=self.patch_alpha, **focal)
            known, count = known_maps(rows, self.device), count_per_part(rows, is_known)
            losses["loss_patch"] = self.class_weight * mean_of_known(patches, known, count)
        return losses

    def _testing_condition(self, scores: Tensor, rows: list[dict[str, Any]]) -> Tensor:
        """Return what the segmentor is told of each image, float B."""
        if self.condition_test == "score":
            return scores
        if self.condition_test == "fake":
            return torch.ones_like(scores)
        if any(row.get("is_fake") is None for row in rows):
            raise ConfigError("MODEL.LOUPE.CONDITION_TEST is 'truth', and an image has no label: leave it at 'score'")
        return fake_labels(rows, self.device).float()

    def _classifier_outputs(
        self, logits: ClassLogits, tokens: Tokens, rows: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        scores = logits.image.sigmoid().tolist()
        if logits.patches is None:
            return [
                {"fake_score": score, "instances": Instances(original_size(row))}
                for score, row in zip(scores, rows, strict=True)
            ]
        return [
            self.map_prediction(row, forged, self.size, score)
            for row, forged, score in zip(rows, self._patch_maps(logits, tokens), scores, strict=True)
        ]

    def _outputs(
        self, queries: QueryPredictions, scores: list[float], rows: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        outputs = []
        for row, score, masks, logits in zip(rows, scores, queries.masks(), queries.logits[-1], strict=True):
            output = query_outputs(
                masks,
                logits,
                self.map_size,
                self.map_size,
                original_size(row),
                limit=self.options.max_instances,
                threshold=self.options.map_threshold,
            )
            outputs.append(output | {"fake_score": score})
        return outputs

    def _localizer(self) -> tuple[LoupeSegmentor, SetCriterion]:
        if self.segmentor is None or self.criterion is None:
            raise ConfigError("MODEL.LOCALIZATION.ENABLED is False: this model has no segmentor")
        return self.segmentor, self.criterion


def _is_trained(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())
