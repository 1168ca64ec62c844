/usr/bin/qemu-system-x86_64 -name a -blockdev driver=file,filename=/srv/shared/a,node-name=n -device
