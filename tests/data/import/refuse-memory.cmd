/usr/bin/qemu-system-x86_64 -name a -machine memory-backend=pc.ram \
 -object '{"qom-type":"memory-backend-file","id":"pc.ram","mem-path":"/var/lib/libvirt/qemu/ram/-1-a/pc.ram","share":true,"size":67108864}'
