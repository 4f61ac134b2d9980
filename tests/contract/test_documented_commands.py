"""Every command that a page shows is understood by the tool that it calls, as it is printed; nothing is run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from torch.distributed.run import get_args_parser

from ddl_d2.cli.main import MODULES
from ddl_d2.config.defaults import add_ddl_config
from ddl_d2.config.load import list_configs, merge_options, read_config
from ddl_d2.serve.service import Service
from tests.conftest import ROOT, load_benchmark
from tests.contract.documents import LANGUAGES, PAGES, Command, blocks, code_spans, commands, links, prose

COMMANDS = list(commands())
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
# Folders whose files the pages name.
FOLDERS = ("ddl_d2", "tests", "tools", "configs", "docs", "trials", "benchmarks", "datasets", "requirements")


def default_config() -> CfgNode:
    cfg = get_cfg()
    add_ddl_config(cfg)
    return cfg


@pytest.fixture
def gpu(monkeypatch):
    """A command for a GPU is parsed as on a machine that has one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def name(command: Command) -> str:
    return f"{command.place}: {' '.join(command.words[:3])}"


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_a_command_is_understood(command, gpu, monkeypatch):
    monkeypatch.chdir(ROOT)
    understand(command.words)


def test_the_commands_were_found():
    """Guards the reading of the pages: were it to find nothing, the test above would test nothing."""
    assert len(COMMANDS) > 60
    called = {command.words[1] for command in COMMANDS if command.words[0] == "ddl-d2"}
    assert {"predict", "train", "evaluate", "fuse", "check-dataset", "info"} <= called


def understand(words: list[str]) -> None:
    """Fail unless whoever types `words` in a clone, with the environment active, is understood."""
    program, *arguments = words
    if program == "ddl-d2":
        parse(MODULES[arguments[0]], arguments[1:])
    elif program.startswith("tools/"):
        parse(module_behind(ROOT / program), arguments)
    elif program == "torchrun":
        ranks = get_args_parser().parse_args(arguments)
        understand([ranks.training_script, *ranks.training_script_args])
    elif program == "python":
        understand_python(arguments)
    elif program == "make":
        understand_make(arguments)
    elif program == "pip":
        understand_pip(arguments)
    elif program == "curl":
        understand_curl(arguments)
    elif program == "pytest":
        assert all((ROOT / path.partition("::")[0]).exists() for path in arguments if not path.startswith("-"))
    elif program == "source":
        assert arguments == [".venv/bin/activate"]
    else:
        assert program in ("export", "git", "pre-commit"), f"what is {program}?"


def module_behind(tool: Path) -> str:
    """The module whose `main` a front in tools/ runs; the front must be executable."""
    assert os.access(tool, os.X_OK), f"{tool} is not executable"
    return re.search(r"from (ddl_d2\.cli\.\w+) import main", tool.read_text(encoding="utf-8"))[1]


def parse(module: str, arguments: list[str]) -> None:
    """Hold arguments against a command's own parser, and its config and keys against those that there are."""
    args = importlib.import_module(module).build_parser().parse_args(arguments)
    options = list(getattr(args, "opts", []))
    named = getattr(args, "config_file", None) or getattr(args, "config", None)
    if named and str(named).endswith(".yaml"):
        assert (ROOT / named).is_file()
    if named:
        read_config(named, options)
    elif options:
        merge_options(default_config(), options)


def understand_python(arguments: list[str]) -> None:
    script = ROOT / arguments[0]
    assert script.is_file()
    if script.parent.name == "benchmarks":
        benchmark = load_benchmark(script.stem)
        if hasattr(benchmark, "parse_arguments"):
            benchmark.parse_arguments(arguments[1:])
            return
        args = benchmark.build_parser().parse_args(arguments[1:])
        if hasattr(args, "config_file"):
            read_config(args.config_file)
        return
    assert script.parent.name == "trials", "a new kind of script: say here how its arguments are checked"
    # Trials keep their parsers to themselves: their source has to define the flags.
    constants = {node.value for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Constant)}
    assert {word for word in arguments if word.startswith("--")} <= constants


def understand_make(arguments: list[str]) -> None:
    for word in arguments:
        variable, sets, _ = word.partition("=")
        assert re.search(rf"^{variable} \?=" if sets else rf"^{word}:", MAKEFILE, flags=re.M), word


def understand_curl(arguments: list[str]) -> None:
    """A request to the service: an address that it has, with parameters that it takes."""
    app = pytest.importorskip("ddl_d2.serve.app", reason="needs the extra serve")
    address = urlsplit(next(word for word in arguments if word.startswith("http://127.0.0.1:")))
    operation = app.build_app(Service(dict)).openapi()["paths"][address.path]["post"]
    assert set(parse_qs(address.query)) <= {one["name"] for one in operation["parameters"]}


def understand_pip(arguments: list[str]) -> None:
    assert arguments[0] in ("install", "wheel")
    for word in arguments[1:]:
        if match := re.fullmatch(r"\.\[(.*)\]", word):
            assert set(match[1].split(",")) <= set(EXTRAS), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_code_is_fenced_and_has_a_language(self, page):
        """Or no test would see it."""
        assert {block.language for block in blocks(page)} <= LANGUAGES
        assert not re.search(r"^\n {4}\S", prose(page), flags=re.M)

    def test_links_lead_somewhere(self, page):
        for link in links(page):
            target = link.partition("#")[0]
            if target and "://" not in target:
                assert (page.parent / target).exists(), link

    def test_named_files_exist(self, page):
        for span in code_spans(page):
            if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w/.-]*", span):
                assert (ROOT / span).exists(), span

    def test_named_commands_exist(self, page):
        for span in code_spans(page):
            words = span.split()
            if words[0] == "ddl-d2" and len(words) > 1 and not words[1].startswith("-"):
                assert words[1] in MODULES, span

    def test_named_keys_exist(self, page):
        """`KEY`, `NODE` and `KEY VALUE ...` in the prose, keys of Detectron2 included."""
        for span in code_spans(page):
            if not re.match(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)+( |$)", span):
                continue
            words = shlex.split(span)
            if len(words) == 1:
                node = default_config()
                for part in words[0].split("."):
                    assert part in node, span
                    node = node[part]
            else:
                merge_options(default_config(), words)


def test_the_model_zoo_names_every_config():
    text = (ROOT / "docs" / "model_zoo.md").read_text(encoding="utf-8")
    missing = [config for config in list_configs() if f"`{config}`" not in text]
    # The ablations share a row.
    assert missing == ["ff/swin_unet_swin_tiny_neither", "ff/swin_unet_swin_tiny_no_displacement"]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < 800
