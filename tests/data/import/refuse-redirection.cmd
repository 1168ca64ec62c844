/usr/bin/qemu-system-x86_64 -name a >/var/log/a.log 2>&1 &
