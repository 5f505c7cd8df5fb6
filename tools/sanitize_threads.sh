# Run ThreadSanitizer on calls from several Python threads, each of which uses several of OpenMP's.
#
# sh tools/sanitize_threads.sh [ARGUMENTS OF PYTEST...]     PYTHON; LLVM: the folder of clang and its libraries
#
# GNU's runtime waits in ways that ThreadSanitizer cannot see; LLVM's tells it by Archer. Python and NumPy are not
# instrumented and left out. Nothing is suppressed.
set -eu
if test $# = 0; then
    for file in tests/test_threads.py tests/test_grad_arrays.py; do
        set -- "$@" "$file::test_concurrent_calls" "$file::test_same_bits_for_any_number_of_threads"
    done
fi
folder=$PWD/build/sanitize-threads
runtime=$("$LLVM/bin/clang" -print-file-name="libclang_rt.tsan-$(uname -m).so")

sh tools/copy_tree.sh "$folder/tree"
"$PYTHON" -m venv "$folder/venv"
CC=$LLVM/bin/clang LDSHARED="$LLVM/bin/clang -shared" LOCALCONV_OPENMP=require \
    LOCALCONV_CFLAGS="-O1 -g -fsanitize=thread -shared-libsan" \
    "$folder/venv/bin/python" -m pip install --quiet "$folder/tree[test]"
cd "$folder/tree"
rm -r src
LD_PRELOAD=$runtime \
    OMP_TOOL_LIBRARIES=$LLVM/lib/libarcher.so \
    TSAN_OPTIONS=ignore_noninstrumented_modules=1:history_size=4:halt_on_error=1 \
    "$folder/venv/bin/python" -m pytest -p no:cacheprovider --capture=sys "$@"
