# make help                 this list
# make dev                  .venv with the package as it is here, compiled in place, and all that tests need;
#                           again after an edit of C or Cython: compiles what changed. Python needs nothing
# make test-quick           a minute's selection of the tests, which finds what most changes break
# make test                 the tests, after make dev
# make test-bridges         tests and examples of localconv.torch, .jax, .keras and .dask, in .venv-bridges;
#                           test-bridges-keras, test-bridges-keras-torch, test-bridges-keras-jax, test-bridges-torch
#                           and test-bridges-others: its parts
# make demo                 filters, matches and sharpens real photographs, then trains on real digits
# make lint                 everything that reads the code; format: writes it as lint wants it
# make docs                 the documentation, in build/docs; docs-check: every page in a browser, at three widths
# make bench                against NumPy, PyTorch and JAX; bench-busy: beside processes that keep every core busy
# make wheel, wheel-test    sdist and wheel, checked and repaired; the tests against both, for every Python in PYTHONS;
#                           wheel-twice: from two clones of the last commit, which must make the same bytes
# make cross                the C headers for Windows, macOS, AArch64 and musl
# make compile_commands.json  how the C files are compiled, for clangd and other tools
# make kernel-test          the kernels in C; kernel-test-aarch64: under qemu; kernel-test-windows: under Wine;
#                           kernel-test-wasm: under Node; kernel-test-s390x: where bytes have the other order; valgrind
# make sanitize             the suite under ASan and UBSan; sanitize-threads: threads under TSan
# make fuzz, soak           random calls for ten minutes (FUZZ_SECONDS); a million calls from eight threads
# make coverage             lines and branches that no test reaches
# make mutants              random one-token changes of the kernels and what feeds them, each built and tested: hours
# make clean                removes what all these make

PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard src/kernels/*.c)
# What an installation in place is made of; Python's files are read where they are. A copy has them too.
COMPILED := setup.py pyproject.toml $(KERNELS) $(shell find src include -name '*.pyx' -o -name '*.h')
SOURCES := $(COMPILED) README.md $(shell find src -name '*.py' -o -name '*.pyi')
BUILD_REQUIRES := 'setuptools>=77' 'cython>=3.1'
C_SOURCES := $(KERNELS) $(shell find include tests/c -name '*.[ch]')
# Tasks of all kinds have the same parameters: some use fewer.
CFLAGS_TEST := -std=c11 -O2 -Wall -Wextra -Wno-unused-parameter -Werror -Iinclude

# What make bench installs beside matplotlib, e.g. PEERS="torch jax"; what .venv has already is measured anyway.
PEERS ?=
BENCH_FLAGS ?=

.PHONY: help dev test-quick test test-bridges test-bridges-keras test-bridges-keras-torch \
	test-bridges-keras-jax test-bridges-torch test-bridges-others demo lint format docs docs-check bench \
	bench-busy wheel wheel-test wheel-twice cross kernel-test kernel-test-aarch64 kernel-test-windows \
	kernel-test-wasm kernel-test-s390x valgrind sanitize sanitize-threads fuzz soak coverage mutants clean
.DELETE_ON_ERROR:

# The comment at this file's head.
help:
	@sed -n '/^$$/q; s/^# //p' Makefile

# The demo's libraries too: the tutorial, whose code is tested, runs on data that come with one of them.
dev: $(VENV)/.test $(VENV)/.demo

# What it runs is in tests/quick.py.
test-quick: dev
	$(BIN)/python -m pytest -q --quick

test: dev
	$(BIN)/python -m pytest

demo: $(VENV)/.demo
	$(BIN)/python examples/foveate.py
	$(BIN)/python examples/block_matching.py
	$(BIN)/python examples/deconvolution.py
	$(BIN)/python examples/digits.py

# One environment for all bridges, each as its extra; a library that has no wheel here ends it.
BRIDGES := $(patsubst tests/bridges/%/conftest.py,%,$(wildcard tests/bridges/*/conftest.py))
# The PyTorch that the tests were written against; the one backend of Keras that has no extra of its own; what
# keras.utils.plot_model needs beside graphviz; whose layers the page for JAX's users takes over; what dask's tests and
# documents use beside it; whose operators the page about inverse problems makes; and what PyTorch and Keras export
# with, and runs what is exported.
BRIDGES_PEERS := torch==2.13.0 tensorflow-cpu pydot flax zarr joblib ray pylops \
	onnx onnxscript onnxruntime tf2onnx jax2onnx
BRIDGES_VENV := .venv-bridges
# macOS has no Triton, and a make that knows of no output in whole lines.
SYNCED := $(if $(filter output-sync,$(.FEATURES)),--output-sync=line)
ifeq ($(shell uname),Linux)
INSTALL_TRITON = $(BRIDGES_VENV)/bin/python -m pip install --quiet --no-deps --upgrade \
	--target $(BRIDGES_VENV)/triton triton
TEST_TRITON = PYTHONPATH=$(BRIDGES_VENV)/triton TRITON_INTERPRET=1 $(BRIDGES_VENV)/bin/python -m pytest \
	tests/bridges/torch/test_torch_triton.py
endif
# In parts side by side: the longest decides, which would be Keras's with its four backends in a row.
test-bridges: $(BRIDGES_VENV)/.installed
	$(MAKE) --jobs=5 $(SYNCED) test-bridges-keras-jax test-bridges-keras test-bridges-keras-torch \
		test-bridges-torch test-bridges-others

test-bridges-keras: $(BRIDGES_VENV)/.installed
	$(BRIDGES_VENV)/bin/python -m pytest tests/bridges/keras -k 'not torch and not jax'
	$(BRIDGES_VENV)/bin/python examples/keras3_migration.py

test-bridges-keras-torch: $(BRIDGES_VENV)/.installed
	$(BRIDGES_VENV)/bin/python -m pytest tests/bridges/keras -k 'torch'

test-bridges-keras-jax: $(BRIDGES_VENV)/.installed
	$(BRIDGES_VENV)/bin/python -m pytest tests/bridges/keras -k 'jax and not torch'

test-bridges-torch: $(BRIDGES_VENV)/.installed
	$(BRIDGES_VENV)/bin/python -m pytest tests/bridges/torch
	$(TEST_TRITON)
	$(BRIDGES_VENV)/bin/python examples/torch_digits.py
	$(BRIDGES_VENV)/bin/python examples/kernel_prediction.py
	$(BRIDGES_VENV)/bin/python examples/deconvolution.py
	$(BRIDGES_VENV)/bin/python examples/neighborhood_attention.py

test-bridges-others: $(BRIDGES_VENV)/.installed
	$(BRIDGES_VENV)/bin/python -m pytest tests/bridges --ignore=tests/bridges/keras --ignore=tests/bridges/torch \
		tests/test_documents.py tests/test_layers_onnx.py
	$(BRIDGES_VENV)/bin/python examples/dask_volume.py

comma := ,
empty :=
$(BRIDGES_VENV)/.installed: $(SOURCES)
	test -x $(BRIDGES_VENV)/bin/python || $(PYTHON) -m venv $(BRIDGES_VENV)
	touch $@.begun
	$(BRIDGES_VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps .
	$(BRIDGES_VENV)/bin/python -m pip install --quiet $(BRIDGES_PEERS) \
		'localconv[test,demo,onnx,$(subst $(empty) $(empty),$(comma),$(BRIDGES))]'
	# Beside the environment: a process with both Triton and TensorFlow ends in an error of LLVM, which both bring.
	$(INSTALL_TRITON)
	mv $@.begun $@

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint src
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/typing/whole_api.py
	$(BIN)/python -m mypy.stubtest localconv._core localconv._xla --allowlist tests/typing/stubtest_allowlist.txt
	$(CC) $(CFLAGS_TEST) -fsyntax-only tests/c/kernel_test.c $(KERNELS)
	$(BIN)/zizmor --offline --quiet --strict-collection .github

format: $(VENV)/.lint
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .
	$(BIN)/clang-format -i $(C_SOURCES)

bench: $(VENV)/.bench
	$(if $(PEERS),$(BIN)/python -m pip install --quiet $(PEERS))
	$(BIN)/python benchmarks/compare.py $(BENCH_FLAGS)
	$(BIN)/python benchmarks/small_kernels.py

bench-busy: $(VENV)/.demo
	$(BIN)/python benchmarks/busy.py

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html

# In the Chromium or Chrome of this system, or what CHROMIUM names; screenshots come to build/screenshots.
docs-check: docs $(VENV)/.docs-check
	$(BIN)/python tools/docs_check.py build/docs --screenshots build/screenshots

# A wheel for the oldest system that its symbols allow, with the OpenMP runtime inside; at most 3 MB.
wheel: $(VENV)/.wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/wheel.sh

# From outside the source tree: the wheel with no compiler at hand, then the sdist with the tests that it contains.
PYTHONS ?= $(PYTHON)
wheel-test:
	sh tools/wheel_test.sh $(PYTHONS)

wheel-twice: $(VENV)/.wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/wheel_twice.sh

# Every target with zig's clang, warnings as errors, linked; Microsoft's dialect as far as the headers go.
ZIG_TARGETS := x86_64-windows-gnu aarch64-windows-gnu x86_64-macos aarch64-macos aarch64-linux-gnu x86_64-linux-musl
cross: $(VENV)/.cross $(ZIG_TARGETS:%=build/cross/%/kernel_test.exe)
	sh tools/cross_msvc.sh $(BIN)/python $(CFLAGS_TEST)

BUILD_KERNEL_TEST := sh tools/build_kernel_test.sh
build/cross/%/kernel_test.exe: $(VENV)/.cross $(C_SOURCES)
	$(BUILD_KERNEL_TEST) $(@D) $(BIN)/python -m ziglang cc -target $* $(CFLAGS_TEST)

compile_commands.json: $(C_SOURCES)
	$(PYTHON) tools/compile_commands.py $(CC) $(CFLAGS_TEST) -- $(KERNELS) tests/c/kernel_test.c

kernel-test:
	$(BUILD_KERNEL_TEST) build/kernel_test $(CC) $(CFLAGS_TEST)
	build/kernel_test/kernel_test.exe

# Debian and Ubuntu: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
kernel-test-aarch64:
	$(BUILD_KERNEL_TEST) build/kernel_test_aarch64 aarch64-linux-gnu-gcc $(CFLAGS_TEST) -static
	qemu-aarch64 build/kernel_test_aarch64/kernel_test.exe

# Debian and Ubuntu: apt-get install wine64, which is not in the PATH there.
WINE ?= $(firstword $(shell command -v wine64 || command -v wine) /usr/lib/wine/wine64)
kernel-test-windows: build/cross/x86_64-windows-gnu/kernel_test.exe
	WINEDEBUG=-all WINEPREFIX=$(CURDIR)/build/wine $(WINE) $< 20

# Debian and Ubuntu: apt-get install emscripten, whose own JavaScript needs modules of Debian's. Its Clang 14 does not
# unroll all loops that it is told to.
kernel-test-wasm:
	NODE_PATH=$(NODE_PATH):/usr/share/nodejs $(BUILD_KERNEL_TEST) build/kernel_test_wasm emcc $(CFLAGS_TEST) \
		-msimd128 -Wno-pass-failed -Wno-unused-command-line-argument -sALLOW_MEMORY_GROWTH -sENVIRONMENT=node \
		-sWASM_ASYNC_COMPILATION=0
	node build/kernel_test_wasm/kernel_test.exe

# Debian and Ubuntu: apt-get install gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user. GCC 12 says for this processor
# which loops it does not unroll.
kernel-test-s390x:
	$(BUILD_KERNEL_TEST) build/kernel_test_s390x s390x-linux-gnu-gcc $(filter-out -Werror,$(CFLAGS_TEST)) -static
	qemu-s390x build/kernel_test_s390x/kernel_test.exe 20

# valgrind hides AVX-512 from CPUID: the AVX2 and plain kernels run.
valgrind:
	$(BUILD_KERNEL_TEST) build/kernel_test_valgrind $(CC) $(CFLAGS_TEST) -g
	valgrind --quiet --error-exitcode=1 --leak-check=full build/kernel_test_valgrind/kernel_test.exe 3

# Random right and wrong calls of everything, and the property tests, from a new seed each time.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.test
	$(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS)
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -q -m hypothesis

# A million small calls, forward and gradients, from eight threads: the process must not grow.
soak: $(VENV)/.test
	SOAK_CALLS=1000000 $(BIN)/python -m pytest -q tests/test_memory.py -k growth

# Random changes of one token: the tests must notice each. A minute for one that they do notice, more for a survivor.
# COUNT; SEED: else a new one each time; MUTANTS_FLAGS: --seconds, --files, --jobs, --no-c-test, --quick, --repeat.
COUNT ?= 150
SEED ?=
MUTANTS_FLAGS ?=
mutants: $(VENV)/.test
	$(BIN)/python tests/mutants.py --count $(COUNT) $(if $(SEED),--seed $(SEED)) $(MUTANTS_FLAGS)

# Lines and branches of the Python, lines of _core.pyx (for which Cython counts no branches), without the GIL too: slow.
# CONTRIBUTING.md names what stays uncovered. Processes that tests start are not counted. Threads would wait for each
# other at every line: one by default.
COVERAGE := cd build/coverage/tree && OMP_NUM_THREADS=1 ../venv/bin/python -m coverage
coverage:
	sh tools/copy_tree.sh build/coverage/tree
	$(PYTHON) -m venv build/coverage/venv
	build/coverage/venv/bin/python -m pip install --quiet $(BUILD_REQUIRES) numpy
	LOCALCONV_TRACE=1 LOCALCONV_CFLAGS="-DCYTHON_TRACE=1 -DCYTHON_TRACE_NOGIL=1" \
		build/coverage/venv/bin/python -m pip install --quiet --no-build-isolation \
		--editable 'build/coverage/tree[test,coverage]'
	$(COVERAGE) run -m pytest -q -m 'not big'
	$(COVERAGE) report

# Both take what pytest shall run, by default all that makes sense there.
SANITIZE_TESTS ?=
sanitize:
	PYTHON="$(PYTHON)" CC="$(CC)" CFLAGS_TEST="$(CFLAGS_TEST)" sh tools/sanitize.sh $(SANITIZE_TESTS)

# Debian and Ubuntu: apt-get install clang-19 libomp-19-dev libclang-rt-19-dev
LLVM ?= /usr/lib/llvm-19
sanitize-threads:
	PYTHON="$(PYTHON)" LLVM="$(LLVM)" sh tools/sanitize_threads.sh $(SANITIZE_TESTS)

clean:
	rm -rf build dist $(VENV) $(BRIDGES_VENV) src/*.egg-info src/localconv/*.c src/localconv/*.so

# The source tree itself, compiled in place; extras are added to what is installed. All targets but test-bridges, which
# has a copy, and those in build run it. The stamp is of the beginning: edits meanwhile count.
$(VENV)/.package: $(COMPILED)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@.begun
	@echo "compiling what changed: all kernels take about a minute of two idle cores"
	$(BIN)/python -m pip install --quiet $(BUILD_REQUIRES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	mv $@.begun $@

EXTRAS := test demo lint bench wheel cross docs docs-check
$(EXTRAS:%=$(VENV)/.%): $(VENV)/.%: $(VENV)/.package
	$(BIN)/python -m pip install --quiet 'localconv[$*]'
	touch $@
