/usr/bin/qemu-system-x86_64 -name a -blockdev driver=raw,file=b,node-name=a -blockdev driver=raw,file=a,node-name=b -device virtio-blk,drive=a
