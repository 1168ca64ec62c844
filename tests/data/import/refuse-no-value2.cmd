/usr/bin/qemu-system-x86_64 -name a -chardev stdio,id=a,=x -qmp
