#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Some seconds of every fuzz target, from the corpus on: in make check.
exec "$(dirname -- "$0")/run" --tap --seconds "${FUZZ_SECONDS:-8}" --build "${KVM_HA_BUILD_DIR:-.}/fuzz-build"
