#!/bin/sh
# The script of the examples.
set -eu
echo "$BUILDER_JOB on $BUILDER_PLATFORM"
