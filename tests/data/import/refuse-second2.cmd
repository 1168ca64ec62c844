# its last word looks like an assignment
QEMU_AUDIO_DRV=none
/usr/bin/qemu-system-x86_64 -name a -drive file=/srv/shared/a.raw
qemu-system-x86_64 -name b -drive file=/srv/shared/b.raw
