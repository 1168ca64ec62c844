/usr/bin/qemu-system-x86_64 -name a \
  -append "root=/dev/vda
