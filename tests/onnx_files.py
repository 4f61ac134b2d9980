"""An exported file with a network that a person can compute: P(fake) and the map are how bright an image is."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import helper, parser

from ddl_d2.export.onnx_file import merged
from ddl_d2.export.surroundings import FAKE, FORGED, NETWORK_INPUT, SIZES, Surroundings
from ddl_d2.inference.onnx_about import METADATA, OnnxAbout

_NETWORK = f"""
<ir_version: 10, opset_import: ["" : 20]>
bright (float[V, 3, P, Q] {NETWORK_INPUT}, int64[1, 2] {SIZES}) => (float[V] {FAKE}, float[V, P, Q] {FORGED}) {{
    color = Constant<value_ints = [1]>()
    all = Constant<value_ints = [1, 2, 3]>()
    {FORGED} = ReduceMean<keepdims = 0>({NETWORK_INPUT}, color)
    {FAKE} = ReduceMean<keepdims = 0>({NETWORK_INPUT}, all)
}}
"""


def write_bright_is_fake(path: Path) -> None:
    """Write the file: the score of an image is the mean of its gray levels / 255, its map each pixel's."""
    surroundings = Surroundings(
        min_size=0,
        max_size=0,
        mean=(0, 0, 0),
        std=(255, 255, 255),
        divisibility=1,
        has_score=True,
        has_authentic=False,
        image_score="max",
    )
    model = merged(surroundings.before(), parser.parse_model(_NETWORK), surroundings.after())
    about = OnnxAbout(
        name="bright",
        meta_architecture="Bright",
        weights_sha256="",
        map_threshold=0.5,
        max_pixels=1_000_000,
        faces=None,
    )
    helper.set_model_props(model, {METADATA: json.dumps(about.as_dict())})
    onnx.save(model, path)
