"""tools/replay.py on files that a training step left."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ddl_d2.cli import replay as command
from ddl_d2.engine.replay import replay
from ddl_d2.engine.step import TrainingStep
from ddl_d2.engine.stopped_step import StoppedStep
from ddl_d2.errors import NonFiniteError
from ddl_d2.solver.build import build_optimizer

SWIN_UNET = "two_cores/swin_unet_efficientnet_lite0.yaml"


@pytest.fixture
def tool():
    return command


@pytest.fixture
def failed(tiny_cfg, make_row, tmp_path):
    """`failed(spoil, config)` -> (file, error) of a step with two images, after `spoil(model, rows)`."""

    def run(spoil, config=SWIN_UNET, precision="float32"):
        torch.manual_seed(0)
        cfg = tiny_cfg(config=config)
        model = build_model(cfg).train()
        rows = [make_row(0, size=(64, 64), name="fake/a.png"), make_row(1, False, (64, 64), name="real/b.png")]
        spoil(model, rows)
        step = TrainingStep(
            model,
            [rows],
            build_optimizer(cfg, model),
            precision=precision,
            stopped_steps=str(tmp_path),
            config=cfg.dump(),
        )
        step.iter = 7
        with pytest.raises(NonFiniteError) as caught:
            step.run_step()
        return tmp_path / "iter_7_rank0.pth", caught.value

    return run


def soft_mask_with_nan(model, rows):
    rows[0]["soft_mask"] = torch.full((64, 64), float("nan"))


def huge_weight(model, rows):
    # Finite, but its products are not.
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)


def test_a_bad_target_is_found(tool, failed, capsys):
    path, error = failed(soft_mask_with_nan)
    assert error.what.startswith("loss_map, loss_diversity, loss_coarse_map at iteration 7")
    assert tool.main([str(path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "iteration 7, rank 0 of 1: loss_map, loss_diversity, loss_coarse_map"
    assert said[1] == "again on cpu in float32"
    alone = {line.split(" alone: ")[0]: line for line in said if " alone: " in line}
    assert "loss_map nan" in alone["fake/a.png"]
    assert "nan" not in alone["real/b.png"]
    # The network itself is sound.
    assert "first module whose output is not finite: the model (SwinUNet): 1 NaN" in "\n".join(said)
    assert said[-1] == "it happens again"


def test_the_first_module_and_parameter_are_named(tool, failed, capsys):
    path, _ = failed(huge_weight)
    assert tool.main([str(path)]) == 1
    said = capsys.readouterr().out
    assert "first module whose output is not finite: classifier (Linear)" in said
    assert "first parameter whose gradient is not finite: " in said
    assert "first parameter whose gradient is not finite: none" not in said


def test_the_same_numbers_come_out(failed):
    """What is drawn at random in the step, here the points of the masks, is drawn again."""

    def spoil(model, rows):
        hook = model.register_forward_hook
        hook(lambda module, inputs, losses: losses | {"loss_late": losses["loss_ce"] * float("inf")})

    path, _ = failed(spoil, config="quickstart/mask2former_efficientnet_lite0.yaml")
    step = StoppedStep.load(path)
    again = replay(step, device="cpu", precision="float32")
    assert again.same_numbers
    kept = {name: loss for name, loss in step.losses.items() if np.isfinite(loss)}
    assert {name: again.losses[name] for name in kept} == kept
    assert len(kept) > 6


def test_what_does_not_happen_again(tool, failed, capsys):
    def spoil(model, rows):
        model.register_forward_hook(lambda module, inputs, losses: losses | {"loss_map": losses["loss_map"] * np.nan})

    path, _ = failed(spoil, precision="bfloat16")
    assert tool.main([str(path), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "again on cpu in bfloat16" in said
    assert "first module whose output is not finite: none" in said
    assert said.endswith("all is finite this time\n")
    assert tool.main([str(path), "--precision", "float32"]) == 0
    assert "again on cpu in float32" in capsys.readouterr().out


def test_what_the_matcher_refuses(tool, failed, capsys):
    def spoil(model, rows):
        with torch.no_grad():
            model.sem_seg_head.predictor.class_embed.bias.fill_(float("nan"))

    path, error = failed(spoil, config="quickstart/mask2former_efficientnet_lite0.yaml")
    assert error.what == "the matching cost at iteration 7"
    assert tool.main([str(path)]) == 1
    said = capsys.readouterr().out
    assert "not finite in the saved weights: sem_seg_head.predictor.class_embed.bias" in said
    assert "all images: the matching cost (fake/a.png) is not finite" in said
    assert "first module whose output is not finite: sem_seg_head.predictor.class_embed (Linear)" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such weights file"),
        (b"text", "damaged weights file"),
        ({"model": {"w": torch.ones(1)}}, "not a stopped training step"),
    ],
)
def test_bad_input_is_one_line(tool, content, message, tmp_path, capsys):
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(SystemExit) as stopped:
        tool.main([str(path)])
    said = capsys.readouterr().err
    assert (stopped.value.code, said.count("\n")) == (2, 1)
    assert message in said


def test_a_config_or_weights_of_another_version(tool, failed, capsys):
    path, _ = failed(soft_mask_with_nan)
    content = torch.load(path, weights_only=True)
    for changes, message in (
        ({"config": "MODEL: {NO_SUCH: 1}"}, "the config of the step: Non-existent config key: MODEL.NO_SUCH"),
        ({"config": "- 1"}, "the config of the step: "),
        ({"model": {"stranger": torch.ones(1)}}, "the weights of the step: "),
    ):
        torch.save(content | changes, path)
        with pytest.raises(SystemExit):
            tool.main([str(path)])
        assert message in capsys.readouterr().err
