/usr/bin/qemu-system-x86_64 -name a \
  -drive 'file=/srv/shared/a,if=virtio
