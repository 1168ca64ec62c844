/usr/bin/qemu-system-x86_64 -name a -netdev user,id=n,hostfwd=tcp::22-:22,hostfwd=tcp::80-:80 \
 -object memory-backend-file,id=m,mem-path=/dev/hugepages/libvirt/qemu/3-a,size=1G,host-nodes=0,host-nodes=2,policy=bind
