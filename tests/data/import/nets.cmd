/usr/bin/qemu-system-x86_64 -name nets -display none \
 -netdev '{"type":"tap","fd":"5","vhost":true,"vhostfd":"6","id":"hostnet0"}' -device '{"driver":"virtio-net-pci","netdev":"hostnet0","mac":"52:54:00:00:00:01"}' \
 -netdev tap,fd=7,id=hostnet1,vhost=on,vhostfd=8 -device virtio-net-pci,netdev=hostnet1,mac=52:54:00:00:00:02 \
 -netdev '{"type":"tap","fd":"9","id":"hostnet2"}' -device '{"driver":"virtio-net-pci","netdev":"hostnet2","mac":"52:54:00:9c:01:7e"}' \
 -netdev '{"type":"tap","fd":"10","id":"hostnet3"}' -device '{"driver":"virtio-net-pci","netdev":"hostnet3","mac":"52:54:00:9c:01:7f"}'
