./qemu-system-x86_64 -name a -device virtio-blk,drive=a -blockdev driver=qcow2,file=none,node-name=a
