#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A ring that is not encrypted: arming is refused with the remedy, unless the configuration says that its network can be trusted.
. "$(dirname -- "$0")/lib.sh"

each() { local n; for n in $nodes; do lab exec "$n" -- "$@" || return 1; done; }
ring_encrypted() { [ "$(ctl_any status -o json | jq .status.ring.encrypted)" = "$1" ]; }
armed() { local n; for n in $nodes; do node_is "$n" .armed true || return 1; done; }
nobody_armed() { local n; for n in $nodes; do node_is "$n" .armed false || return 1; done; }
refused() { ctl n1 arm 2>&1 | grep -q "not encrypted.*crypto_cipher.*RequireEncryption=no"; }

lab_up --no-arm --volumes file
check "the ring is encrypted" within $patience ring_encrypted true
each sed -i 's/crypto_cipher:.*/crypto_cipher: none/; s/crypto_hash:.*/crypto_hash: none/' /etc/corosync/corosync.conf
each systemctl stop corosync
each systemctl start corosync
check "now it is not" within $patience ring_encrypted false
check "arm says why not, and what to do" within $patience refused
check "its exit status is 1" exits 1 ctl n1 arm
check "nobody is armed" throughout 3 nobody_armed

each mkdir -p /etc/kvm-ha/conf.d
each sh -c 'printf "[Ring]\nRequireEncryption=no\n" >/etc/kvm-ha/conf.d/ring.conf'
each systemctl kill --kill-who=main ha-keeper
each systemctl restart ha-agent
within $patience led || note "no leader"
check "told that the network can be trusted, arm is taken" within $patience exits 0 ctl n1 arm
check "and all are armed" within $patience armed
finish
