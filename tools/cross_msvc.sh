# Read the kernels in Microsoft's dialect, for both processors, with zig's clang and tests/c/msvc for its headers.
#
# sh tools/cross_msvc.sh PYTHON [FLAGS...]     PYTHON: one that has ziglang
set -eu
python=$1
shift
lib=$("$python" -c 'import ziglang, os; print(os.path.dirname(ziglang.__file__))')/lib
for machine in x86_64 aarch64; do
    echo "$machine-pc-windows-msvc"
    "$python" -m ziglang clang --target="$machine-pc-windows-msvc" -fms-compatibility -fms-extensions -ffreestanding \
        -nostdinc -isystem "$lib/include" -isystem tests/c/msvc "$@" -Wno-unused -fsyntax-only src/kernels/*.c
done
