# Build sdist and wheel of the last commit in two clones, of which places, times and rights differ, and compare them to
# the byte.
#
# sh tools/wheel_twice.sh     with the tools of extra [wheel] in the PATH
set -eu
folder=$PWD/build/wheel-twice
rm -rf "$folder"
mkdir -p "$folder"
git clone --quiet . "$folder/one"
(umask 027 && git clone --quiet . "$folder/another")
for clone in one another; do
    log=$folder/$clone.log
    (cd "$folder/$clone" && sh tools/wheel.sh) > "$log" 2>&1 || { tail -n 30 "$log"; exit 1; }
done
for file in "$folder"/one/dist/*; do
    cmp "$file" "$folder/another/dist/$(basename "$file")"
    sha256sum "$file"
done
