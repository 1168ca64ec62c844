#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# storage_paths.sh with a volume on NFS.
KVM_HA_PATHS_OF=nfs exec bash "$(dirname -- "$0")/storage_paths.sh"
