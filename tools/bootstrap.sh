#!/bin/sh
# Find what `make dev` needs before it can make .venv: a C compiler, and a Python 3.10 or newer that
# has the venv module and its C headers.  Missing Debian packages are installed where that is
# possible without a question (root, or sudo without a password); otherwise the one line to type is
# printed and the script fails.  In: PYTHON, optional, an interpreter to use.  Out: on standard
# output the interpreter to use, everything else on standard error.  Called by the Makefile.
set -eu

# Prints nothing and succeeds when $1 is new enough, can make a venv and has headers.
usable() {
	"$1" - 2>/dev/null <<'PY'
import ensurepip, os, sys, sysconfig, venv
assert sys.version_info >= (3, 10)
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
PY
}

new_enough() {
	"$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

candidates="${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python3.14}"

find_python() {
	for name in $candidates; do
		path=$(command -v "$name" 2>/dev/null) || continue
		# env -i style surprises (pyenv shims for a version that is not there) fail here too.
		if usable "$path"; then
			echo "$path"
			return 0
		fi
	done
	return 1
}

packages=
python=$(find_python) || {
	python=
	for name in $candidates; do
		path=$(command -v "$name" 2>/dev/null) || continue
		new_enough "$path" && break
		path=
	done
	case "${path:-}" in
		/usr/bin/python3.*) packages="${path##*/}-venv ${path##*/}-dev" ;;
		*) packages="python3 python3-venv python3-dev" ;;
	esac
}
command -v gcc >/dev/null 2>&1 || command -v cc >/dev/null 2>&1 || packages="$packages gcc libc6-dev"
# The check is for libc's headers: a compiler without them is common in slim images.
if command -v cc >/dev/null 2>&1 && ! echo '#include <stdio.h>' | cc -E -x c - >/dev/null 2>&1; then
	packages="$packages libc6-dev"
fi
# PGXS of the wheel's servers runs make, and its recipes need these.
command -v make >/dev/null 2>&1 || packages="$packages make"

if [ -n "$packages" ]; then
	line="apt-get install -y --no-install-recommends $packages"
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "error: these are missing: $packages" >&2
		echo "HINT:  Install them (the names are Debian's), then run make again." >&2
		exit 1
	elif [ "$(id -u)" = 0 ]; then
		echo "installing $packages" >&2
		# A fresh machine has no package lists; a stale list is worth one refresh.
		DEBIAN_FRONTEND=noninteractive $line >&2 || {
			apt-get update >&2
			DEBIAN_FRONTEND=noninteractive $line >&2
		}
	elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		echo "installing $packages" >&2
		sudo -n DEBIAN_FRONTEND=noninteractive $line >&2 || {
			sudo -n apt-get update >&2
			sudo -n DEBIAN_FRONTEND=noninteractive $line >&2
		}
	else
		echo "error: these packages are missing: $packages" >&2
		echo "HINT:  Run: sudo $line" >&2
		exit 1
	fi
	python=${python:-$(find_python)} || {
		echo "error: no Python 3.10 or newer with venv and headers was found" >&2
		echo "HINT:  Set PYTHON to an interpreter: make dev PYTHON=/path/to/python3." >&2
		exit 1
	}
fi
echo "$python"
