"""Networks: backbones, decoders, heads, losses, and the systems made of them. Importing it registers them."""

from ddl_d2.modeling import meta_arch  # noqa: F401
from ddl_d2.modeling.backbone import (  # noqa: F401
    mix_transformer,
    perception_encoder,
    plain_vit,
    timm_backbone,
    timm_pyramid,
)
from ddl_d2.modeling.mask2former import head  # noqa: F401
from ddl_d2.modeling.segmentor import concat_head, sam_head, uper_head  # noqa: F401
from ddl_d2.modeling.system import ForgerySystem, SystemOptions

__all__ = ["ForgerySystem", "SystemOptions"]
