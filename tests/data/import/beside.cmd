/usr/bin/qemu-system-x86_64 -name beside -display none -drive file=/srv/shared/a.raw,format=raw,if=virtio \
 -netdev '{"type":"tap","fd":"5","id":"hostnet0"}' -device '{"driver":"virtio-net-pci","netdev":"hostnet0","mac":"52:54:00:00:00:01"}' \
 -netdev '{"type":"tap","fd":"6","id":"hostnet1"}' -device '{"driver":"virtio-net-pci","netdev":"hostnet1","mac":"52:54:00:00:00:02"}'
