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

RUN = $(VENV)/bin/python -P
RUN_CUDA = $(VENV_CUDA)/bin/python -P
MNIST_ARGS ?=
BENCH_ARGS ?=
KERNELS_ARGS ?= --quick
PYTEST_ARGS ?=

SOURCES := setup.py pyproject.toml $(shell find build_backend csrc lif_cuda -type f \
  \( -name '*.py' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.inl' \))
CPP_FILES := $(shell find csrc tests -type f \
  \( -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h' -o -name '*.inl' \))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DELETE_ON_ERROR:
.PHONY: help mnist test cuda-build lint bench kernels clean

help:
	@echo 'make mnist        train the SNN and the ANN on MNIST; results in runs/mnist'
	@echo '                  (MNIST_ARGS="--epochs 2 ..."; LIF_CUDA_DATA names a folder with the files)'
	@echo 'make test         run the tests (PYTEST_ARGS="-k ...")'
	@echo 'make bench        time a training step, fused and not (BENCH_ARGS="--threads 2 ...")'
	@echo 'make kernels      microbenchmarks of one layer (KERNELS_ARGS="--threads 1 ...")'
	@echo 'make lint         ruff, mypy, clang-format and clang-tidy'
	@echo 'make cuda-build   build the CUDA half against a torch with CUDA, and run the tests there'
	@echo 'make clean        remove what was built here; the environments stay'
	@echo
	@echo 'Environments: $(VENV), $(VENV_CUDA) (several GB). Python: PYTHON=$(PYTHON)'

# A stamp is written last, so that an interrupted step is done again.
#
# torchvision downloads MNIST where it lies nowhere; it imports only beside a torch with CUDA.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install '$(TORCH)'
	if $(RUN) -W ignore -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then \
	  $(VENV)/bin/pip install '$(TORCHVISION)'; fi
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(SOURCES)
	$(VENV)/bin/pip install '.[bench,test,dev]'
	$(RUN) -m lif_cuda info
	touch $@

$(VENV_CUDA)/.torch:
	$(PYTHON) -m venv $(VENV_CUDA)
	$(VENV_CUDA)/bin/pip install '$(TORCH_CUDA)' '$(TORCHVISION)'
	touch $@

$(VENV_CUDA)/.installed: $(VENV_CUDA)/.torch $(SOURCES)
	LIF_CUDA_BUILD=cuda $(VENV_CUDA)/bin/pip install '.[bench,test]'
	touch $@

mnist: $(VENV)/.installed
	$(VENV)/bin/python bench/mnist.py --out runs/mnist $(MNIST_ARGS)

test: $(VENV)/.installed
	$(RUN) -m pytest $(PYTEST_ARGS)

bench: $(VENV)/.installed
	$(VENV)/bin/python bench/train_step.py $(BENCH_ARGS)

kernels: $(VENV)/.installed
	$(VENV)/bin/python bench/kernels.py $(KERNELS_ARGS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP_FILES)
	$(RUN) tests/clang_tidy.py

# info loads the CUDA operators and fails if one of them has no CUDA kernel.
cuda-build: $(VENV_CUDA)/.installed
	$(RUN_CUDA) -m lif_cuda info
	$(RUN_CUDA) -m pytest $(PYTEST_ARGS)

clean:
	rm -rf build dist lif_cuda.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f lif_cuda/*.so $(VENV)/.installed $(VENV_CUDA)/.installed
	find bench build_backend lif_cuda tests -name __pycache__ -type d -prune -exec rm -rf {} +
