"""The one build file: the package and its compiled op, `ddl_d2._C` (multi-scale deformable attention).

    pip install --no-build-isolation --no-deps -e .

Environment:
    DDL_D2_NO_EXTENSION=1  do not compile; the op then runs as slow PyTorch code
    DDL_D2_CUDA=1 / 0      compile the CUDA kernels / do not. Unset: compile them if nvcc and a GPU are here.
                           FORCE_CUDA=1, known from other packages, means DDL_D2_CUDA=1
    TORCH_CUDA_ARCH_LIST   CUDA architectures, "8.0;9.0" if unset
    MAX_JOBS               parallel compiler processes
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
from typing import Any

from setuptools import Extension, find_namespace_packages, setup

CSRC = "ddl_d2/csrc"
HEADERS = sorted(glob.glob(f"{CSRC}/*.h"))
# No -march=native and no -ffast-math: the CPU kernel picks its instruction set at run time, and NaN must stay NaN.
CXX_FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math"]
if sys.platform == "linux":
    # For the compiler only: without it at::parallel_for runs on one thread. The linker is not told, so that the threads
    # are those of the OpenMP library that torch has loaded, not of a second one.
    CXX_FLAGS.append("-fopenmp")
NVCC_FLAGS = ["-O3", "-std=c++17", "-lineinfo"]


def say(text: str) -> None:
    """Print a line that pip shows with -v."""
    print(f"ddl_d2 setup: {text}", file=sys.stderr, flush=True)


def flag(name: str) -> bool | None:
    """True or False for a variable set to 1 or 0, None if it is unset or empty."""
    text = os.environ.get(name, "")
    if text not in ("", "0", "1"):
        raise SystemExit(f"ddl_d2 setup: {name} must be 0 or 1, not {text!r}")
    return None if text == "" else text == "1"


def want_cuda(torch: Any, cuda_home: str | None) -> bool:
    """Whether to compile the CUDA kernels; says why."""
    asked = flag("DDL_D2_CUDA")
    if asked is None and flag("FORCE_CUDA"):
        asked = True
    if asked is False:
        say("CPU kernels only (DDL_D2_CUDA=0)")
        return False
    nvcc = cuda_home and os.path.exists(os.path.join(cuda_home, "bin", "nvcc"))
    missing = []
    if torch.version.cuda is None:
        missing.append("this PyTorch was built without CUDA")
    if not nvcc:
        missing.append("there is no nvcc (set CUDA_HOME)")
    if asked and missing:
        raise SystemExit(f"ddl_d2 setup: CUDA kernels were asked for, but {' and '.join(missing)}")
    if not asked and not torch.cuda.is_available():
        missing.append("no GPU is visible (DDL_D2_CUDA=1 compiles for one nonetheless)")
    if missing:
        say(f"CPU kernels only: {'; '.join(missing)}")
        return False
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0")
    say(f"CPU and CUDA kernels, nvcc of {cuda_home}, architectures {os.environ['TORCH_CUDA_ARCH_LIST']}")
    return True


def cuda_wheel_folder() -> str | None:
    """The folder of the CUDA headers and libraries that PyPI's torch brings as wheels, or None."""
    try:
        import nvidia
    except ImportError:
        return None
    for root in nvidia.__path__:
        for folder in sorted(glob.glob(os.path.join(root, "cu[0-9]*")), reverse=True):
            if os.path.isdir(os.path.join(folder, "include")):
                return folder
    return None


def link_cuda_runtime(extension: Extension, cuda_home: str) -> None:
    """Toolkits without libcudart.so (only nvcc installed): link the wheel's libcudart.so.N, the one torch loads."""
    for lib in ("lib64", "lib"):
        if os.path.exists(os.path.join(cuda_home, lib, "libcudart.so")):
            return
    wheel = cuda_wheel_folder()
    found = sorted(glob.glob(os.path.join(wheel, "lib", "libcudart.so.*"))) if wheel else []
    if found:
        extension.libraries.remove("cudart")
        extension.extra_link_args.append(found[-1])


def make_extension(cpp_extension: Any, with_cuda: bool) -> Extension:
    """The compiled op as setuptools sees it."""
    sources = [f"{CSRC}/ms_deform_attn.cpp", f"{CSRC}/ms_deform_attn_cpu.cpp"]
    options = {
        "depends": HEADERS,
        "extra_compile_args": {"cxx": CXX_FLAGS},
    }
    if not with_cuda:
        return cpp_extension.CppExtension("ddl_d2._C", sources, **options)
    options["extra_compile_args"] = {"cxx": [*CXX_FLAGS, "-DDDL_WITH_CUDA"], "nvcc": NVCC_FLAGS}
    wheel = cuda_wheel_folder()
    include_dirs = [os.path.join(wheel, "include")] if wheel else []
    sources.append(f"{CSRC}/ms_deform_attn_cuda.cu")
    extension = cpp_extension.CUDAExtension("ddl_d2._C", sources, include_dirs=include_dirs, **options)
    link_cuda_runtime(extension, cpp_extension.CUDA_HOME)
    return extension


def extension_arguments() -> dict[str, Any]:
    """The arguments of setup() that have to do with the compiled op."""
    if flag("DDL_D2_NO_EXTENSION"):
        say("no compiled op (DDL_D2_NO_EXTENSION=1); ms_deform_attn will run as slow PyTorch code")
        return {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        raise SystemExit(
            f"ddl_d2 setup: cannot import torch ({error}). Install torch first, then run\n"
            "    pip install --no-build-isolation --no-deps -e .\n"
            "or set DDL_D2_NO_EXTENSION=1 to install without the compiled op."
        ) from error

    with_cuda = want_cuda(torch, cpp_extension.CUDA_HOME)
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        if with_cuda:
            raise SystemExit(f"ddl_d2 setup: no C++ compiler ({compiler!r}); set CXX, or DDL_D2_CUDA=0 to do without")
        say(
            f"NO C++ COMPILER ({compiler!r} is not in PATH): installing without the compiled op; ms_deform_attn will "
            "run as slow PyTorch code. Install g++ (or set CXX) and install again."
        )
        return {}

    class Build(cpp_extension.BuildExtension):
        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except Exception as error:
                hint = "set DDL_D2_CUDA=0 to do without the CUDA kernels, or " if with_cuda else ""
                raise SystemExit(
                    f"ddl_d2 setup: compiling ddl_d2._C failed ({type(error).__name__}: {error}). The compiler's "
                    f"message is above. To go on, {hint}set DDL_D2_NO_EXTENSION=1 to install without the compiled op."
                ) from error

    return {
        "ext_modules": [make_extension(cpp_extension, with_cuda)],
        "cmdclass": {"build_ext": Build},
    }


# Only commands that build need torch. The others, asked for metadata or a source archive, need the list of sources.
NO_BUILD = {"egg_info", "dist_info", "sdist", "clean", "--version", "--name", "--help"}
if NO_BUILD & set(sys.argv[1:]):
    arguments = {"ext_modules": [Extension("ddl_d2._C", sorted(glob.glob(f"{CSRC}/*.c*")), depends=HEADERS)]}
else:
    arguments = extension_arguments()
config_folders = {"ddl_d2.configs": "configs"} | {
    f"ddl_d2.configs.{name}": f"configs/{name}" for name in find_namespace_packages("configs")
}
# The configs and the weights lie beside the package in a checkout, and within it in a wheel.
weights_folder = {"ddl_d2.weights": "weights"}
setup(
    packages=[
        *find_namespace_packages(include=["ddl_d2", "ddl_d2.*"], exclude=["ddl_d2.csrc"]),
        *config_folders,
        *weights_folder,
    ],
    package_dir=config_folders | weights_folder,
    package_data={folder: ["*.yaml"] for folder in config_folders}
    | {
        "ddl_d2.weights": ["*.safetensors", "*.json", "*.md"],
        "ddl_d2.evaluation.baselines": ["*.json"],
        "ddl_d2.report": ["*.css", "*.js"],
        "ddl_d2.serve.page": ["*.html", "*.css", "*.js"],
    },
    **arguments,
)
