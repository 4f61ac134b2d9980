"""Networks: backbones, decoders, heads, losses, and the systems made of them."""

from ddl_d2.modeling import backbone, heads, meta_arch, pyramid  # noqa: F401  (registers them)
