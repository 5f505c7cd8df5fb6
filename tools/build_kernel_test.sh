# Compile kernel_test and all instances of the kernels, side by side, into FOLDER/kernel_test.exe.
#
# sh tools/build_kernel_test.sh FOLDER COMPILER [FLAGS...]
set -eu
folder=$1
shift
mkdir -p "$folder"
rm -f "$folder"/*.o
printf '%s\n' tests/c/kernel_test.c src/kernels/*.c | xargs -P 0 -I SOURCE sh -c '
    source=$1 folder=$2
    shift 2
    exec "$@" -c "$source" -o "$folder/$(basename "$source" .c).o"' sh SOURCE "$folder" "$@"
"$@" "$folder"/*.o -o "$folder/kernel_test.exe" -lm
