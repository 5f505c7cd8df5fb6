# Run kernel_test, the suite and the fuzzer under AddressSanitizer and UndefinedBehaviorSanitizer.
#
# sh tools/sanitize.sh [ARGUMENTS OF PYTEST...]     PYTHON, CC; CFLAGS_TEST: the flags of kernel_test
#
# CC, CFLAGS_TEST and flags are not quoted where they stand for several words.
#
# The three checks left out repeat at every vector load what AddressSanitizer sees anyway, and take minutes to compile.
set -eu
test $# -gt 0 || set -- -m 'not big and not memory'
flags='-O1 -g -fsanitize=address,undefined -fno-sanitize=null,object-size,pointer-overflow
    -fno-sanitize-recover=all -fno-omit-frame-pointer'
folder=$PWD/build/sanitize
python=$folder/venv/bin/python

# Leaks are not looked for: the interpreter keeps memory on purpose. The runtimes must be loaded before Python's own.
address=$($CC -print-file-name=libasan.so)
undefined=$($CC -print-file-name=libubsan.so)
sanitized() {
    LD_PRELOAD="$address $undefined" \
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096 "$python" "$@"
}

sh tools/copy_tree.sh "$folder/tree"
"$PYTHON" -m venv "$folder/venv"
LOCALCONV_CFLAGS=$flags "$python" -m pip install --quiet "$folder/tree[test]"
sh tools/build_kernel_test.sh build/kernel_test_sanitized $CC $CFLAGS_TEST $flags
build/kernel_test_sanitized/kernel_test.exe 20
cd "$folder/tree"
rm -r src
sanitized -m pytest -p no:cacheprovider --capture=sys "$@"
sanitized tests/fuzz.py --seconds 60 --unlimited
