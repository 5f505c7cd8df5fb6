# Copy what the package is made of into FOLDER: objects of other flags and those of this tree's own build must not meet.
#
# sh tools/copy_tree.sh FOLDER
set -eu
rm -rf "$1"
mkdir -p "$1"
cp -r setup.py pyproject.toml ./*.md CITATION.cff Makefile LICENSE NOTICE MANIFEST.in \
    src include tests docs examples benchmarks tools "$1"
rm -f "$1"/src/localconv/*.so "$1"/src/localconv/*.c
