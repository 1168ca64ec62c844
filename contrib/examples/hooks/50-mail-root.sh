#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Mails root about what an operator should know. Copy it to /etc/kvm-ha/hooks.d, owned by root, mode 0755.
# Hooks run one after the other, with a time limit; ha-agent(8) lists the variables.
set -u

case $KVM_HA_EVENT in
vm-started | vm-stopped | maintenance-on | maintenance-off) exit 0 ;; # somebody asked for it
esac

/usr/sbin/sendmail -i root <<MAIL
Subject: [$KVM_HA_CLUSTER] $KVM_HA_EVENT ${KVM_HA_VM:-$KVM_HA_NODE}
To: root

Event:   $KVM_HA_EVENT
Cluster: $KVM_HA_CLUSTER
Node:    $KVM_HA_NODE
VM:      $KVM_HA_VM $KVM_HA_VM_UUID
Reason:  $KVM_HA_REASON
Time:    $KVM_HA_TIME
Sent by: $KVM_HA_HOST

What to do next: ha-ctl status
MAIL
