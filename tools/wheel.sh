# Build the sdist and from it the wheel into dist, repair it on Linux, and check both: at most 3 MB.
#
# sh tools/wheel.sh     with the tools of extra [wheel] in the PATH
#
# The times in both are SOURCE_DATE_EPOCH, by default the commit's, and rights are those of umask 022: two clones of a
# commit make the same bytes.
set -eu
umask 022
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
rm -rf dist
python -m build --sdist --outdir dist
python tools/pack_sdist.py dist/*.tar.gz
python -m pip wheel --no-deps --wheel-dir dist/raw dist/*.tar.gz
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
