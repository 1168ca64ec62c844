#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The small configurations of every model, and each mutant that must fail: in make check.
exec "$(dirname -- "$0")/run" --tap small
