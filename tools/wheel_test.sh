# Test what is in dist outside the source tree: the wheel with no compiler at hand, then the sdist with the tests that
# it contains.
#
# sh tools/wheel_test.sh PYTHON...
set -eu
folder=$PWD/build/wheel-test
python=$folder/venv/bin/python
for base; do
    rm -rf "$folder"
    mkdir -p "$folder/sdist" "$folder/wheel"
    tar xf dist/*.tar.gz -C "$folder/sdist" --strip-components=1
    "$base" -m venv "$folder/venv"

    wheel=$(ls "$PWD"/dist/*.whl)
    CC=false PATH=/nonexistent "$python" -m pip install --quiet --only-binary :all: "${wheel}[test]"
    cp -r "$folder/sdist/tests" "$folder/sdist/pyproject.toml" "$folder/wheel"
    (cd "$folder/wheel" && "$python" -m pytest -q)

    "$python" -m pip install --quiet --force-reinstall --no-deps --no-binary localconv dist/*.tar.gz
    rm -r "$folder/sdist/src"
    (cd "$folder/sdist" && "$python" -m pytest -q)
done
