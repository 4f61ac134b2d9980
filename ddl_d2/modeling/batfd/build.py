"""The parts of a clip model, built from MODEL.BATFD."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode
from torch import nn

from ddl_d2.errors import ConfigError
from ddl_d2.modeling.batfd.audio_encoder import VIT_WIDTHS, CNNAudioEncoder, LightAudioEncoder, ViTAudioEncoder
from ddl_d2.modeling.batfd.clip_batch import FITS
from ddl_d2.modeling.batfd.losses import CONTRAST_SCALINGS
from ddl_d2.modeling.batfd.targets import parse_durations
from ddl_d2.modeling.batfd.timm_frames import TimmVideoEncoder
from ddl_d2.modeling.batfd.umma import Abnormality
from ddl_d2.modeling.batfd.video_encoder import MVIT_DEPTHS, C3DVideoEncoder, MViTVideoEncoder

COMPATS = ("exact", "published")
HEADS = ("map", "points")
_CNN_FEATURES = 256


@dataclass(frozen=True, kw_only=True)
class ClipModelOptions:
    """The config values of MODEL.BATFD that are not about one part.

    Attributes:
        frames: T, the frames that the network sees at once.
        durations: of the rows of its maps, frames.
        fit: "pad" or "stretch", see `clip_batch.ClipFit`.
        published: compute what weights of the published code mean ("published" of COMPAT).
        frame_weight: of the losses of the frames.
        modality_weight: of the losses of each modality's maps.
        contrast_weight: of the contrastive loss; 0 leaves it out.
        contrast_margin, contrast_scaling: see `losses.contrast_loss`.
        curve_weight: of the agreement of the boundary generator with itself played backward; 0: there is none.
        reconstruction_weight, score_weight: of the two losses of `umma.Reconstruction`.
    """

    frames: int
    durations: tuple[int, ...]
    fit: str = "pad"
    published: bool = False
    frame_weight: float = 2.0
    modality_weight: float = 1.0
    contrast_weight: float = 0.1
    contrast_margin: float = 0.99
    contrast_scaling: str = "exact"
    curve_weight: float = 0.0
    reconstruction_weight: float = 1.0
    score_weight: float = 0.1

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ClipModelOptions:
        """Gather the values from MODEL.BATFD. Raises ConfigError for those that are none."""
        keys = cfg.MODEL.BATFD
        for key, allowed in (("FIT", FITS), ("COMPAT", COMPATS), ("CONTRAST_SCALING", CONTRAST_SCALINGS)):
            if keys[key] not in allowed:
                raise ConfigError(f"MODEL.BATFD.{key} is '{keys[key]}': it must be one of {', '.join(allowed)}")
        try:
            durations = parse_durations(keys.DURATIONS)
        except ValueError as error:
            raise ConfigError(
                f"MODEL.BATFD.DURATIONS is '{keys.DURATIONS}': write rising durations in frames, each from 1, as "
                "first:last or first:last:step, joined by commas"
            ) from error
        if durations[-1] > keys.NUM_FRAMES:
            raise ConfigError(
                f"MODEL.BATFD.DURATIONS goes up to {durations[-1]} frames, MODEL.BATFD.NUM_FRAMES is {keys.NUM_FRAMES}"
            )
        if keys.CBG_WEIGHT > 0 and keys.NUM_FRAMES % 4:
            raise ConfigError("MODEL.BATFD.CBG_WEIGHT needs a MODEL.BATFD.NUM_FRAMES that 4 divides")
        return cls(
            frames=keys.NUM_FRAMES,
            durations=tuple(durations),
            fit=keys.FIT,
            published=keys.COMPAT == "published",
            frame_weight=keys.FRAME_WEIGHT,
            modality_weight=keys.MODALITY_WEIGHT,
            contrast_weight=keys.CONTRAST_WEIGHT,
            contrast_margin=keys.CONTRAST_MARGIN,
            contrast_scaling=keys.CONTRAST_SCALING,
            curve_weight=keys.CBG_WEIGHT,
            reconstruction_weight=cfg.MODEL.UMMA.RECONSTRUCTION_WEIGHT,
            score_weight=cfg.MODEL.UMMA.SCORE_WEIGHT,
        )


def build_abnormality(cfg: CfgNode) -> Abnormality | None:
    """Build UMMAFormer's parts; None without MODEL.UMMA.ENABLED. Raises ConfigError where they cannot be."""
    keys = cfg.MODEL.UMMA
    if cfg.MODEL.BATFD.HEAD not in HEADS:
        raise ConfigError(f"MODEL.BATFD.HEAD is '{cfg.MODEL.BATFD.HEAD}': it must be one of {', '.join(HEADS)}")
    if not keys.ENABLED:
        if cfg.MODEL.BATFD.HEAD == "points":
            raise ConfigError("MODEL.BATFD.HEAD points reads the pyramid of MODEL.UMMA: set MODEL.UMMA.ENABLED True")
        return None
    if keys.WINDOW % 2 == 0 or keys.DIM % keys.HEADS:
        raise ConfigError(
            f"MODEL.UMMA.WINDOW is {keys.WINDOW} and DIM {keys.DIM}: they must be odd, and a multiple of HEADS "
            f"({keys.HEADS})"
        )
    return Abnormality(
        features=cfg.MODEL.BATFD.FEATURE_DIM,
        channels=keys.DIM,
        heads=keys.HEADS,
        window=keys.WINDOW,
        frames=cfg.MODEL.BATFD.NUM_FRAMES,
    )


def build_video_encoder(cfg: CfgNode) -> nn.Module:
    """Build MODEL.BATFD.VIDEO_ENCODER. Raises ConfigError for one that does not exist."""
    keys = cfg.MODEL.BATFD
    name: str = keys.VIDEO_ENCODER
    if name in MVIT_DEPTHS:
        return MViTVideoEncoder(depths=MVIT_DEPTHS[name], frames=keys.NUM_FRAMES, features=keys.FEATURE_DIM)
    if name == "c3d":
        return C3DVideoEncoder(features=keys.FEATURE_DIM)
    if name.startswith("timm:"):
        return TimmVideoEncoder(
            name=name.removeprefix("timm:"),
            pretrained=cfg.MODEL.TIMM.PRETRAINED,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            frames=keys.NUM_FRAMES,
            features=keys.FEATURE_DIM,
            dropout=keys.DROPOUT,
            remembered=keys.REMEMBERED_FRAMES,
        )
    raise ConfigError(
        f"MODEL.BATFD.VIDEO_ENCODER is '{name}': it must be one of {', '.join(MVIT_DEPTHS)}, c3d, or timm:<name of a "
        "timm model>"
    )


def build_audio_encoder(cfg: CfgNode) -> nn.Module:
    """Build MODEL.BATFD.AUDIO_ENCODER. Raises ConfigError for one that does not exist."""
    keys = cfg.MODEL.BATFD
    name: str = keys.AUDIO_ENCODER
    if name in VIT_WIDTHS:
        width, heads = VIT_WIDTHS[name]
        return ViTAudioEncoder(width=width, heads=heads, frames=keys.NUM_FRAMES, features=keys.FEATURE_DIM)
    if name == "light":
        return LightAudioEncoder(frames=keys.NUM_FRAMES, features=keys.FEATURE_DIM, dropout=keys.DROPOUT)
    if name != "cnn":
        raise ConfigError(
            f"MODEL.BATFD.AUDIO_ENCODER is '{name}': it must be one of {', '.join(VIT_WIDTHS)}, cnn, light"
        )
    if keys.FEATURE_DIM != _CNN_FEATURES:
        raise ConfigError(f"MODEL.BATFD.AUDIO_ENCODER cnn gives {_CNN_FEATURES} features: set FEATURE_DIM to that")
    return CNNAudioEncoder()
