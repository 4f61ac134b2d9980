"""`ddl-d2`: the commands are there, each says how it is used, and tools/*.py are their executable fronts."""

import os
import subprocess
import sys

import pytest

from ddl_d2.cli.main import COMMANDS, MODULES, main
from tests.conftest import ROOT


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_an_unknown_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["preditc"])
    assert stopped.value.code == 2
    assert "invalid choice: 'preditc'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_own_help_names_it(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ddl-d2"])
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert f"usage: ddl-d2 {name} " in capsys.readouterr().out


def test_every_tool_is_the_executable_front_of_a_command():
    fronts = {"train_net": "train"}
    tools = sorted((ROOT / "tools").glob("*.py"))
    assert tools
    for tool in tools:
        module = f"ddl_d2.cli.{fronts.get(tool.stem, tool.stem)}"
        assert module in MODULES.values()
        assert f"from {module} import main\n" in tool.read_text(encoding="utf-8")
        assert os.access(tool, os.X_OK), tool


def test_a_front_runs(tmp_path):
    command = [sys.executable, str(ROOT / "tools/evaluate.py"), "--predictions", str(tmp_path), "--submission", "x.zip"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_configs_are_listed(capsys):
    assert main(["configs"]) == 0
    names = capsys.readouterr().out.split()
    assert "ddl_i/mask2former_swin_tiny" in names
    assert not any("Base-" in name for name in names)
