/usr/bin/qemu-system-x86_64 -name a -readconfig /etc/qemu/a.cfg
