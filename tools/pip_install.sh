#!/bin/sh
# Run `pip install` so that a person sees it move, without its pages of output: one line for each
# package that is being fetched, the rest in a log that is shown only when pip fails.
# In: $1 the interpreter, $2 the log file, then pip's arguments.  Called by the Makefile.
set -eu
python=$1
log=$2
shift 2
mkdir -p "$(dirname "$log")"
# The exit status of pip, not that of the filter behind it.
status=$(
	{
		{
			"$python" -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" \
				2>&1 3>&- && echo 0 >&3 || echo $? >&3
		} | tee "$log" | awk '
			/^ *(Downloading|Building wheel for|Installing collected)/ {
				if ($1 == "Building") text = "building " $4
				else if ($1 == "Installing") text = "installing"
				else { text = $2; sub(/.*\//, "", text); text = "fetching " text " " $3 " " $4 }
				print "  " text; fflush()
			}' >&2
	} 3>&1
)
if [ "$status" != 0 ]; then
	tail -n 30 "$log" >&2
	echo "error: pip could not install what is needed" >&2
	echo "HINT:  The whole output is in $log." >&2
	exit 1
fi
