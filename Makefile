# make demo                 filters a real photograph, then trains on real digits
# make test                 sets everything up and runs the tests
# make test-bridges         the tests and examples of localconv.torch, .jax, .keras and .dask, in an environment of their own (.venv-bridges)
# make lint                 everything that reads the code; format: writes it as lint wants it
# make bench                against NumPy, PyTorch and JAX; bench-busy: beside processes that keep every core busy
# make docs                 the documentation, in build/docs; docs-check: looks at every page in a browser, at three widths
# make wheel, wheel-test    sdist and wheel, checked and repaired; the tests against both, for every Python in PYTHONS
# make cross                the C headers for Windows, macOS, AArch64 and musl
# make compile_commands.json  how the C files are compiled, for clangd and other tools
# make kernel-test          the kernels in C; kernel-test-aarch64: under qemu; kernel-test-windows: under Wine; valgrind
# make sanitize             the suite under ASan and UBSan; sanitize-threads: threads under TSan
# make fuzz, soak, coverage
# make mutants              random one-token changes of the kernels and what feeds them, each built and tested: hours

PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard src/kernels/*.c)
SOURCES := setup.py pyproject.toml README.md $(KERNELS) $(shell find src include -name '*.py' -o -name '*.pyx' -o -name '*.pyi' -o -name '*.h')
C_SOURCES := $(KERNELS) $(shell find include tests/c -name '*.[ch]')
# Tasks of all kinds have the same parameters: some use fewer.
CFLAGS_TEST := -std=c11 -O2 -Wall -Wextra -Wno-unused-parameter -Werror -Iinclude

# What make bench installs beside matplotlib, e.g. PEERS="torch jax"; what the environment has already is measured anyway.
PEERS ?=
BENCH_FLAGS ?=

.PHONY: demo test test-bridges lint format bench bench-busy docs docs-check wheel wheel-test cross kernel-test kernel-test-aarch64 kernel-test-windows valgrind fuzz soak mutants coverage sanitize sanitize-threads clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/python examples/foveate.py
	$(BIN)/python examples/digits.py

# The demo's libraries too: the tutorial runs on data that come with one of them.
test: $(VENV)/.test $(VENV)/.demo
	$(BIN)/python -m pytest

# One environment for all bridges, each as its extra; a library that has no wheel here ends it.
BRIDGES := torch jax keras dask
# The PyTorch that the tests were written against; the one backend of Keras that has no extra of its own; what
# keras.utils.plot_model needs beside graphviz; whose layers the page for JAX's users takes over; and what dask's tests
# and documents use beside it.
BRIDGES_PEERS := torch==2.13.0 tensorflow-cpu pydot flax zarr joblib ray
BRIDGES_VENV := .venv-bridges
test-bridges: $(BRIDGES_VENV)/.installed
	$(BRIDGES_VENV)/bin/python -m pytest tests/bridges tests/test_documents.py
	$(BRIDGES_VENV)/bin/python examples/torch_digits.py
	$(BRIDGES_VENV)/bin/python examples/kernel_prediction.py
	$(BRIDGES_VENV)/bin/python examples/keras3_migration.py
	$(BRIDGES_VENV)/bin/python examples/dask_volume.py

comma := ,
empty :=
$(BRIDGES_VENV)/.installed: $(SOURCES)
	test -x $(BRIDGES_VENV)/bin/python || $(PYTHON) -m venv $(BRIDGES_VENV)
	touch $@.begun
	$(BRIDGES_VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps .
	$(BRIDGES_VENV)/bin/python -m pip install --quiet 'localconv[test,demo,$(subst $(empty) $(empty),$(comma),$(BRIDGES))]' $(BRIDGES_PEERS)
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
	rm -rf dist
	$(BIN)/python -m build --outdir dist/raw
	mv dist/raw/*.tar.gz dist/
	if test "$$(uname)" = Linux; then PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/repair_wheel.py dist/raw/*.whl dist; else mv dist/raw/*.whl dist/; fi
	rm -r dist/raw
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/twine check --strict dist/*
	$(BIN)/abi3audit --strict --report dist/*.whl
	test $$(cat dist/*.whl | wc -c) -le 3000000

# From outside the source tree: the wheel with no compiler at hand, then the sdist with the tests that it contains.
PYTHONS ?= $(PYTHON)
wheel-test:
	set -e; for python in $(PYTHONS); do \
		rm -rf build/wheel-test; mkdir -p build/wheel-test/sdist; \
		tar xf dist/*.tar.gz -C build/wheel-test/sdist --strip-components=1; \
		$$python -m venv build/wheel-test/venv; \
		CC=false PATH=/nonexistent $(CURDIR)/build/wheel-test/venv/bin/python -m pip install --quiet --only-binary :all: "$$(ls $(CURDIR)/dist/*.whl)[test]"; \
		(cd build/wheel-test && mkdir wheel && cp -r sdist/tests sdist/pyproject.toml wheel && cd wheel && ../venv/bin/python -m pytest -q); \
		build/wheel-test/venv/bin/python -m pip install --quiet --force-reinstall --no-deps --no-binary localconv dist/*.tar.gz; \
		(cd build/wheel-test/sdist && rm -r src && ../venv/bin/python -m pytest -q); \
	done

# Every target with zig's clang, warnings as errors, linked; Microsoft's dialect as far as the headers go.
# kernel_test and all instances, side by side, by the compiler $(1) into the folder $(2).
define build_kernel_test
	mkdir -p $(2)
	printf '%s\n' tests/c/kernel_test.c $(KERNELS) | xargs -P 0 -I SOURCE sh -c '$(1) -c SOURCE -o $(2)/$$(basename SOURCE .c).o'
	$(1) $(2)/*.o -o $(2)/kernel_test.exe -lm
endef

ZIG_TARGETS := x86_64-windows-gnu aarch64-windows-gnu x86_64-macos aarch64-macos aarch64-linux-gnu x86_64-linux-musl
cross: $(VENV)/.cross $(ZIG_TARGETS:%=build/cross/%/kernel_test.exe)
	set -e; lib="$$($(BIN)/python -c 'import ziglang, os; print(os.path.dirname(ziglang.__file__))')/lib"; for machine in x86_64 aarch64; do \
		echo $$machine-pc-windows-msvc; $(BIN)/python -m ziglang clang --target=$$machine-pc-windows-msvc -fms-compatibility -fms-extensions \
			-ffreestanding -nostdinc -isystem "$$lib/include" -isystem tests/c/msvc $(CFLAGS_TEST) -Wno-unused -fsyntax-only $(KERNELS) || exit 1; \
	done

build/cross/%/kernel_test.exe: $(VENV)/.cross $(C_SOURCES)
	$(call build_kernel_test,$(BIN)/python -m ziglang cc -target $* $(CFLAGS_TEST),$(@D))

compile_commands.json: $(C_SOURCES)
	$(PYTHON) tools/compile_commands.py $(CC) $(CFLAGS_TEST) -- $(KERNELS) tests/c/kernel_test.c

kernel-test:
	$(call build_kernel_test,$(CC) $(CFLAGS_TEST),build/kernel_test)
	build/kernel_test/kernel_test.exe

# Debian and Ubuntu: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
kernel-test-aarch64:
	$(call build_kernel_test,aarch64-linux-gnu-gcc $(CFLAGS_TEST) -static,build/kernel_test_aarch64)
	qemu-aarch64 build/kernel_test_aarch64/kernel_test.exe

# Debian and Ubuntu: apt-get install wine64, which is not in the PATH there.
WINE ?= $(firstword $(shell command -v wine64 || command -v wine) /usr/lib/wine/wine64)
kernel-test-windows: build/cross/x86_64-windows-gnu/kernel_test.exe
	WINEDEBUG=-all WINEPREFIX=$(CURDIR)/build/wine $(WINE) $< 20

# valgrind hides AVX-512 from CPUID: the AVX2 and plain kernels run.
valgrind:
	$(call build_kernel_test,$(CC) $(CFLAGS_TEST) -g,build/kernel_test_valgrind)
	valgrind --quiet --error-exitcode=1 --leak-check=full build/kernel_test_valgrind/kernel_test.exe 3

# Random right and wrong calls of everything, and the property tests, from a new seed each time.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.test
	$(BIN)/python tests/fuzz.py --seconds $(FUZZ_SECONDS)
	HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -q -m hypothesis

# A million small calls, forward and gradients, from eight threads: the process must not grow.
soak: $(VENV)/.test
	SOAK_CALLS=1000000 $(BIN)/python -m pytest -q tests/test_memory.py -k growth

# Random changes of one token: the tests must notice each. A minute for one that they do notice, more for a survivor. COUNT; SEED: else a new
# one each time; MUTANTS_FLAGS: --seconds, --files, --jobs, --no-c-test, --quick, --repeat.
COUNT ?= 150
SEED ?=
MUTANTS_FLAGS ?=
mutants: $(VENV)/.test
	$(BIN)/python -m pip install --quiet 'setuptools>=77' 'cython>=3.1'
	$(BIN)/python tests/mutants.py --count $(COUNT) $(if $(SEED),--seed $(SEED)) $(MUTANTS_FLAGS)

# What the package is made of, elsewhere: objects of other flags and those of this tree's own build must not meet.
define copy_tree
	rm -rf $(1)
	mkdir -p $(1)
	cp -r setup.py pyproject.toml *.md CITATION.cff Makefile LICENSE NOTICE MANIFEST.in src include tests docs examples benchmarks $(1)
	rm -f $(1)/src/localconv/*.so $(1)/src/localconv/*.c
endef

# Lines and branches of the Python, lines of _core.pyx (for which Cython counts no branches), without the GIL too: slow. CONTRIBUTING.md names
# what stays uncovered. Processes that tests start are not counted. Threads would wait for each other at every line: one by default.
coverage:
	$(call copy_tree,build/coverage/tree)
	$(PYTHON) -m venv build/coverage/venv
	build/coverage/venv/bin/python -m pip install --quiet 'setuptools>=77' 'cython>=3.1' numpy
	cd build/coverage/tree && LOCALCONV_TRACE=1 LOCALCONV_CFLAGS="-DCYTHON_TRACE=1 -DCYTHON_TRACE_NOGIL=1" ../venv/bin/python -m pip install --quiet --no-build-isolation -e '.[test,coverage]'
	cd build/coverage/tree && OMP_NUM_THREADS=1 ../venv/bin/python -m coverage run -m pytest -q -m 'not big'
	cd build/coverage/tree && ../venv/bin/python -m coverage report

# Leaks are not looked for: the interpreter keeps memory on purpose. The sanitizers' runtime must be loaded before Python's own.
# The three checks left out repeat at every vector load what AddressSanitizer sees anyway, and take minutes to compile.
SANITIZERS := -O1 -g -fsanitize=address,undefined -fno-sanitize=null,object-size,pointer-overflow -fno-sanitize-recover=all \
	-fno-omit-frame-pointer
SANITIZED = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096 $(CURDIR)/build/sanitize/venv/bin/python
sanitize:
	$(call copy_tree,build/sanitize/tree)
	$(PYTHON) -m venv build/sanitize/venv
	LOCALCONV_CFLAGS="$(SANITIZERS)" build/sanitize/venv/bin/python -m pip install --quiet 'build/sanitize/tree[test]'
	$(call build_kernel_test,$(CC) $(CFLAGS_TEST) $(SANITIZERS),build/kernel_test_sanitized)
	build/kernel_test_sanitized/kernel_test.exe 20
	cd build/sanitize/tree && rm -r src && $(SANITIZED) -m pytest -p no:cacheprovider --capture=sys -m 'not big and not memory'
	cd build/sanitize/tree && $(SANITIZED) tests/fuzz.py --seconds 60 --unlimited

# ThreadSanitizer on calls from several Python threads, each of which uses several of OpenMP's. GNU's runtime waits in ways that
# ThreadSanitizer cannot see; LLVM's tells it by Archer. Python and NumPy are not instrumented and left out. Nothing is suppressed.
# Debian and Ubuntu: apt-get install clang-19 libomp-19-dev libclang-rt-19-dev
LLVM ?= /usr/lib/llvm-19
sanitize-threads:
	$(call copy_tree,build/sanitize-threads/tree)
	$(PYTHON) -m venv build/sanitize-threads/venv
	CC=$(LLVM)/bin/clang LDSHARED="$(LLVM)/bin/clang -shared" LOCALCONV_OPENMP=require LOCALCONV_CFLAGS="-O1 -g -fsanitize=thread -shared-libsan" \
		build/sanitize-threads/venv/bin/python -m pip install --quiet 'build/sanitize-threads/tree[test]'
	cd build/sanitize-threads/tree && rm -r src && LD_PRELOAD="$$($(LLVM)/bin/clang -print-file-name=libclang_rt.tsan-$$(uname -m).so)" \
		OMP_TOOL_LIBRARIES=$(LLVM)/lib/libarcher.so TSAN_OPTIONS=ignore_noninstrumented_modules=1:history_size=4:halt_on_error=1 \
		../venv/bin/python -m pytest -p no:cacheprovider --capture=sys \
		tests/test_threads.py::test_concurrent_calls tests/test_threads.py::test_same_bits_for_any_number_of_threads \
		tests/test_grad_arrays.py::test_concurrent_calls tests/test_grad_arrays.py::test_same_bits_for_any_number_of_threads

clean:
	rm -rf build dist $(VENV) $(BRIDGES_VENV) src/*.egg-info src/localconv/*.c src/localconv/*.so

# The package itself, compiled once; extras are added to what is installed. The stamp is of the beginning: edits meanwhile count.
$(VENV)/.package: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@.begun
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps .
	$(BIN)/python -m pip install --quiet localconv
	mv $@.begun $@

$(VENV)/.test $(VENV)/.demo $(VENV)/.lint $(VENV)/.bench $(VENV)/.wheel $(VENV)/.cross $(VENV)/.docs $(VENV)/.docs-check: $(VENV)/.%: $(VENV)/.package
	$(BIN)/python -m pip install --quiet 'localconv[$*]'
	touch $@
