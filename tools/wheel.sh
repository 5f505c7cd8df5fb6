# Build the sdist and from it the wheel into dist, repair it on Linux, and check both: at most 3 MB.
#
# sh tools/wheel.sh     with the tools of extra [wheel] in the PATH
set -eu
rm -rf dist
python -m build --outdir dist/raw
mv dist/raw/*.tar.gz dist/
if test "$(uname)" = Linux; then
    python tools/repair_wheel.py dist/raw/*.whl dist
else
    mv dist/raw/*.whl dist/
fi
rm -r dist/raw
check-wheel-contents dist/*.whl
twine check --strict dist/*
abi3audit --strict --report dist/*.whl
test "$(cat dist/*.whl | wc -c)" -le 3000000
