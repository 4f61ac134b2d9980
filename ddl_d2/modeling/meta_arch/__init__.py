"""One file per system, each registered in Detectron2's META_ARCH_REGISTRY."""

from ddl_d2.modeling.meta_arch.batfd import BATFD
from ddl_d2.modeling.meta_arch.forgery_fpn import ForgeryFPN
from ddl_d2.modeling.meta_arch.forgery_mask2former import ForgeryMask2Former
from ddl_d2.modeling.meta_arch.forgery_segmentor import ForgerySegmentor
from ddl_d2.modeling.meta_arch.lfdl import LFDL
from ddl_d2.modeling.meta_arch.loupe import Loupe
from ddl_d2.modeling.meta_arch.mesorch import Mesorch
from ddl_d2.modeling.meta_arch.swin_unet import SwinUNet

__all__ = ["BATFD", "LFDL", "ForgeryFPN", "ForgeryMask2Former", "ForgerySegmentor", "Loupe", "Mesorch", "SwinUNet"]
