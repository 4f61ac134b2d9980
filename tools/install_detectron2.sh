#!/usr/bin/env bash
# Make `import detectron2` work for the Python given as $1, from PyPI alone.
#
# An installed detectron2 (0.6 or newer, or main) is used as it is. Otherwise the wheel named in
# requirements/detectron2.txt goes into site-packages: it is tagged cp310 for the sake of a compiled
# `_C` that was linked against another torch. ddl_d2 never imports `_C`, so the tag is overridden and
# the binary removed, with the stray top-level `tools` package that the wheel also carries.
set -euo pipefail

python=${1:?usage: tools/install_detectron2.sh PYTHON}
here=$(cd "$(dirname "$0")/.." && pwd)

if "$python" -c 'import detectron2' 2>/dev/null; then
    "$python" -c 'import detectron2; print("detectron2", detectron2.__version__, "is already installed")'
    exit 0
fi

site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT
"$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.10 \
    --target "$staging" --require-hashes -r "$here/requirements/detectron2.txt"
rm -rf "$staging"/tools "$staging"/bin
find "$staging/detectron2" -name '_C*.so' -delete
# Its stated requirements (numpy<2, an exact black) are not what it needs; ours are in pyproject.toml.
sed -i "/^Requires-Dist:/d" "$staging"/sal_detectron2-*.dist-info/METADATA
cp -R "$staging"/. "$site"/
"$python" -c 'import detectron2; print("detectron2", detectron2.__version__, "installed from sal-detectron2")'
