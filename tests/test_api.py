"""`import ddl_d2` is light, and says in one sentence what is missing."""

import os
import subprocess
import sys

import pytest

import ddl_d2
from tests.conftest import ROOT, TINY

WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
{code}
"""


def run(code: str, *missing: str) -> subprocess.CompletedProcess:
    text = WITHOUT.format(missing=missing, code=code)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=ROOT, check=False)


def test_importing_loads_neither_torch_nor_detectron2():
    done = run("import ddl_d2; print([m for m in ('torch', 'detectron2', 'numpy') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_every_public_name_is_there():
    for name in ddl_d2.__all__:
        assert getattr(ddl_d2, name) is not None
    assert set(ddl_d2.__all__) <= set(dir(ddl_d2))
    with pytest.raises(AttributeError, match="no attribute 'load_modell'"):
        ddl_d2.load_modell  # noqa: B018


@pytest.mark.parametrize(
    ("package", "remedy"), [("detectron2", "ddl-d2 install-detectron2"), ("torch", "pip install torch")]
)
def test_what_is_missing_is_said_in_one_sentence(package, remedy):
    done = run("import ddl_d2\ntry:\n    ddl_d2.load_model\nexcept Exception as e: print(type(e).__name__, e)", package)
    assert done.stdout.startswith(f"InstallError ddl_d2 needs {package}, which is not installed"), done.stderr
    assert remedy in done.stdout


@pytest.mark.parametrize("package", ["detectron2", "torch"])
def test_the_command_says_it_too(package):
    done = run("from ddl_d2.cli.main import main; sys.exit(main(['predict', 'x.png']))", package)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: ddl_d2 needs {package}"), done.stderr


@pytest.mark.parametrize("missing", [(), ("detectron2",), ("detectron2", "torch", "torchvision", "numpy", "tabulate")])
def test_info_needs_nothing_but_python(missing):
    done = run("from ddl_d2.cli.main import main; sys.exit(main(['info']))", *missing)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert ("MISSING" in lines["detectron2"]) == ("detectron2" in missing)
    assert ("MISSING" in lines["torch"]) == ("torch" in missing)


NAMELESS = """
import os, pwd, sys
def unknown(uid): raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "DDL_D2_CACHE"):
    os.environ.pop(name, None)
from ddl_d2.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_user_without_home_and_name(tiny_set, tmp_path):
    """As in a container under a bare user id: one training step, and a look at the dataset."""
    options = ["SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "2", "TEST.EVAL_PERIOD", "0"]
    config = ["--config-file", "quickstart/mask2former_efficientnet_lite0", *TINY, *options]
    for words in (
        ["info"],
        ["check-dataset", str(tiny_set), "--workers", "1"],
        ["train", *config, "DATASETS.DDL_ROOT", str(tiny_set), "OUTPUT_DIR", str(tmp_path / "out")],
    ):
        command = [sys.executable, "-c", NAMELESS, *words]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out/model_final.safetensors").is_file()
    assert not (tmp_path / "~").exists()
