"""Putting an ONNX model together: what comes before the network, the network, what comes after, and what it says."""

from __future__ import annotations

import json
from typing import Any

import onnx
from detectron2.config import CfgNode
from onnx import GraphProto, ModelProto, helper

from ddl_d2.checkpoint.shipped import about_weights
from ddl_d2.data.build_faces import crop_settings, finder_settings
from ddl_d2.errors import ConfigError
from ddl_d2.export.network import export_network
from ddl_d2.export.surroundings import IMAGE, MAP, SCORE, Surroundings
from ddl_d2.inference.onnx_about import METADATA, OnnxAbout
from ddl_d2.modeling.system import ForgerySystem
from ddl_d2.predictions.meta import file_sha256
from ddl_d2.version import __version__


def export_onnx(cfg: CfgNode, system: ForgerySystem) -> ModelProto:
    """Export a trained system with all that surrounds its network.

    Args:
        cfg: its config.
        system: in eval mode, on the CPU.

    Returns:
        a model that takes `image`, uint8 B×H×W×3 RGB, and gives `fake_score`, float B, and `forgery_map`, float B×H×W;
        images of a model of faces are to be cut to these before.

    Raises:
        ConfigError: the config asks for what a graph cannot do: tiles, views of several sizes, a plain ViT of any size.
        ExportError: as `export_network`.
    """
    _check(cfg)
    network = export_network(system)
    outputs = [output.name for output in network.graph.output]
    surroundings = surroundings_of(cfg, system, scored=len(outputs) - _maps(outputs) > 0, authentic=_maps(outputs) > 1)
    model = merged(surroundings.before(), network, surroundings.after())
    helper.set_model_props(model, {METADATA: json.dumps(about(cfg).as_dict())})
    return model


def _maps(names: list[str]) -> int:
    return sum(not name.endswith("fake") for name in names)


def _check(cfg: CfgNode) -> None:
    if cfg.TEST.TILE.SIZE:
        raise ConfigError(
            f"TEST.TILE.SIZE is {cfg.TEST.TILE.SIZE}: an exported graph sees whole images. Set it to 0, and "
            "INPUT.MAX_SIZE_TEST to what the network can take"
        )
    if cfg.TEST.AUG.ENABLED and len(cfg.TEST.AUG.MIN_SIZES):
        raise ConfigError("TEST.AUG.MIN_SIZES: an exported graph sees one size; empty it (TEST.AUG.FLIP is exported)")
    if cfg.MODEL.BACKBONE.NAME == "build_plain_vit_backbone" and not cfg.MODEL.PLAIN_VIT.SQUARE_PAD:
        raise ConfigError(
            "MODEL.PLAIN_VIT.SQUARE_PAD is 0: a plain ViT is exported for one size only. Set it to a multiple of 32, "
            f"{-(-cfg.INPUT.MAX_SIZE_TEST // 32) * 32} for INPUT.MAX_SIZE_TEST {cfg.INPUT.MAX_SIZE_TEST}"
        )


def surroundings_of(cfg: CfgNode, system: ForgerySystem, *, scored: bool, authentic: bool) -> Surroundings:
    """Read from config and system what surrounds the network.

    Args:
        cfg: the config.
        system: the system.
        scored: whether the network scores images.
        authentic: whether it gives a map of authentic pixels, too.
    """
    return Surroundings(
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        mean=system.options.pixel_mean,
        std=system.options.pixel_std,
        divisibility=system.size_divisibility,
        size=(0, 0) if system.size_divisibility else system.size,
        flip=cfg.TEST.AUG.ENABLED and cfg.TEST.AUG.FLIP,
        has_score=scored,
        has_authentic=authentic,
        image_score=system.options.image_score,
    )


def merged(before: GraphProto, network: ModelProto, after: GraphProto) -> ModelProto:
    """Join graphs by the names of their values, of which those within the surroundings get a prefix of their own."""
    kept = {value.name for graph in (before, after) for value in (*graph.input, *graph.output)}
    nodes = [*_renamed(before, "before.", kept), *network.graph.node, *_renamed(after, "after.", kept)]
    model = ModelProto()
    model.CopyFrom(network)
    graph = model.graph
    for field in ("node", "input", "output", "value_info"):
        graph.ClearField(field)
    graph.name = "ddl_d2"
    graph.node.extend(nodes)
    graph.input.extend(value for value in before.input if value.name == IMAGE)
    graph.output.extend(value for value in after.output if value.name in (SCORE, MAP))
    model.producer_name, model.producer_version = "ddl_d2", __version__
    onnx.checker.check_model(model)
    return model


def _renamed(graph: GraphProto, prefix: str, kept: set[str]) -> list[onnx.NodeProto]:
    nodes = []
    for number, node in enumerate(graph.node):
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{prefix}{number}"
        for names in (copied.input, copied.output):
            names[:] = [name if not name or name in kept else prefix + name for name in names]
        nodes.append(copied)
    return nodes


def about(cfg: CfgNode) -> OnnxAbout:
    """Return what the file says of itself, before anything was measured on it."""
    weights = cfg.MODEL.WEIGHTS
    faces: dict[str, Any] | None = None
    if cfg.INPUT.FACE_CROP.ENABLED:
        crop = {"margin": cfg.INPUT.FACE_CROP.MARGIN, **crop_settings(cfg)}
        faces = {"finder": finder_settings(cfg) | {"cache": None}, "crop": crop, "score": cfg.TEST.FACE_SCORE}
    return OnnxAbout(
        name=about_weights(weights),
        meta_architecture=cfg.MODEL.META_ARCHITECTURE,
        weights_sha256=file_sha256(weights),
        map_threshold=cfg.TEST.MAP_THRESHOLD,
        max_pixels=cfg.INPUT.MAX_PIXELS,
        faces=faces,
    )
