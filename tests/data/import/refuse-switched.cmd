/usr/bin/qemu-system-x86_64 -name a -netdev tap,fd=5,id=hostnet0 -device virtio-net-pci,netdev=hostnet0,mac=52:54:00:00:00:01 \
 -netdev tap,fd=6,id=hostnet1 -device virtio-net-pci,netdev=hostnet1,mac=52:54:00:00:00:02
