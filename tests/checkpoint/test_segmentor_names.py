import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.checkpoint.loading import load_weights
from ddl_d2.checkpoint.segmentor_names import from_published_segmentor
from ddl_d2.errors import CheckpointError

pytest.importorskip("transformers")

_MARKS = {
    "hrnet": ["decode_head.conv_seg.weight", "backbone.stage4.0.branches.0.0.conv1.weight"],
    "swin": ["decode_head.conv_seg.weight", "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"],
    "mit": ["decode_head.conv_seg.weight", "backbone.layers.0.0.projection.weight"],
    "sam": ["image_encoder.patch_embed.proj.weight"],
    "iml_vit": ["encoder_net.patch_embed.proj.weight"],
}


def _renamed(key: str, family: str) -> list[str]:
    """What becomes of one key of a checkpoint."""
    others = {mark: torch.ones(4, 1, 1, 1) for mark in _MARKS[family] if mark != key}
    return [name for name, v in from_published_segmentor(others | {key: torch.zeros(4)}).items() if not v.any()]


@pytest.mark.parametrize(
    ("family", "theirs", "ours"),
    [
        ("hrnet", "backbone.stage2.0.fuse_layers.0.1.0.weight", "backbone.body.stage2.0.fuse_layers.0.1.0.weight"),
        ("hrnet", "decode_head.convs.0.conv.weight", "sem_seg_head.fuse.weight"),
        ("hrnet", "decode_head.convs.0.bn.running_var", "sem_seg_head.fuse.norm.running_var"),
        ("hrnet", "decode_head.conv_seg.bias", "sem_seg_head.predict.bias"),
        ("swin", "backbone.norm3.bias", "backbone.out_norms.res5.bias"),
        ("swin", "backbone.patch_embed.norm.bias", "backbone.body.patch_embed.norm.bias"),
        ("swin", "backbone.stages.2.blocks.5.ffn.layers.0.0.bias", "backbone.body.layers_2.blocks.5.mlp.fc1.bias"),
        ("swin", "decode_head.psp_modules.3.1.bn.bias", "sem_seg_head.pooled.3.norm.bias"),
        ("swin", "decode_head.bottleneck.conv.weight", "sem_seg_head.top.weight"),
        ("swin", "decode_head.lateral_convs.2.conv.weight", "sem_seg_head.laterals.2.weight"),
        ("swin", "decode_head.fpn_convs.0.bn.weight", "sem_seg_head.outputs.0.norm.weight"),
        ("swin", "decode_head.fpn_bottleneck.conv.weight", "sem_seg_head.fuse.weight"),
        ("swin", "auxiliary_head.convs.0.conv.weight", "auxiliary_head.fuse.weight"),
        ("swin", "auxiliary_head.conv_seg.weight", "auxiliary_head.predict.weight"),
        ("mit", "backbone.layers.3.2.bias", "backbone.body.stages.3.layer_norm.bias"),
        ("mit", "decode_head.convs.3.conv.weight", "sem_seg_head.project.3.weight"),
        ("mit", "decode_head.fusion_conv.bn.bias", "sem_seg_head.fuse.norm.bias"),
        ("sam", "image_encoder.blocks.0.mlp.lin2.bias", "backbone.net.blocks.0.mlp.fc2.bias"),
        ("sam", "image_encoder.neck.3.bias", "backbone.simfp_4.1.norm.bias"),
        ("sam", "mask_decoder.output_upscaling.1.bias", "sem_seg_head.decoder.upscale_layer_norm.bias"),
        ("sam", "mask_decoder.output_hypernetworks_mlps.2.layers.2.bias",
         "sem_seg_head.decoder.output_hypernetworks_mlps.2.proj_out.bias"),
        ("sam", "prompt_encoder.no_mask_embed.weight", "sem_seg_head.no_mask.weight"),
        ("sam", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "sem_seg_head.frequencies"),
        ("sam", "prompt_encoder.point_embeddings.0.weight", "prompt_encoder.point_embeddings.0.weight"),
        ("iml_vit", "encoder_net.blocks.2.attn.rel_pos_h", "backbone.net.blocks.2.attn.rel_pos_h"),
        ("iml_vit", "featurePyramid_net.simfp_5.2.norm.bias", "backbone.simfp_5.2.norm.bias"),
        ("iml_vit", "predict_head.norm.running_mean", "sem_seg_head.fuse.norm.running_mean"),
        ("iml_vit", "predict_head.linear_predict.bias", "sem_seg_head.predict.bias"),
    ],
)  # fmt: skip
def test_names(family, theirs, ours):
    assert _renamed(theirs, family) == [ours]


def test_swins_downsampling_moves_and_is_reordered():
    """Two channels a, b: mmsegmentation's inputs are a00 a01 a10 a11 b00 ..., timm's a00 b00 a10 b10 a01 b01 ..."""
    published = {mark: torch.ones(1) for mark in _MARKS["swin"]}
    published["backbone.stages.0.downsample.norm.weight"] = torch.arange(8.0)
    published["backbone.stages.0.downsample.reduction.weight"] = torch.arange(8.0)[None]
    renamed = from_published_segmentor(published)
    order = [0.0, 4, 2, 6, 1, 5, 3, 7]
    assert renamed["backbone.body.layers_1.downsample.norm.weight"].tolist() == order
    assert renamed["backbone.body.layers_1.downsample.reduction.weight"].tolist() == [order]
    assert not any(key.startswith("backbone.stages") for key in renamed)


def test_others_stay_as_they_are():
    other = {"backbone.x": torch.zeros(1), "decode_head.conv_seg.weight": torch.zeros(1)}
    assert from_published_segmentor(other) is other


def test_a_zoo_checkpoint_of_150_classes_starts_a_training_and_says_what_is_new(tiny_cfg, tmp_path):
    torch.manual_seed(0)
    model = build_model(tiny_cfg("MODEL.TIMM.NAME", "hrnet_w18_small", config="ddl_i/hrnet_w18.yaml"))
    published = {}
    for key, value in model.state_dict().items():
        name = key.replace("backbone.body.", "backbone.").replace("sem_seg_head.predict", "decode_head.conv_seg")
        name = name.replace("sem_seg_head.fuse.norm", "decode_head.convs.0.bn")
        published[name.replace("sem_seg_head.fuse", "decode_head.convs.0.conv")] = value
    published = {key: value for key, value in published.items() if not key.startswith("image_head.")}
    published["decode_head.conv_seg.weight"] = torch.zeros(150, 32, 1, 1)
    published["decode_head.conv_seg.bias"] = torch.zeros(150)
    torch.save({"state_dict": published, "meta": {}}, tmp_path / "zoo.pth")
    report = load_weights(model, tmp_path / "zoo.pth", allow_partial=True)
    assert report.missing == ["image_head.linear.weight", "image_head.linear.bias"]
    assert [entry.split(" ")[0] for entry in report.misshapen] == [
        "sem_seg_head.predict.weight", "sem_seg_head.predict.bias"
    ]  # fmt: skip
    assert report.unused == []
    with pytest.raises(CheckpointError, match="of another shape: sem_seg_head.predict.weight"):
        load_weights(model, tmp_path / "zoo.pth")
