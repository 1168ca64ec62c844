/usr/bin/qemu-system-x86_64 -name a \
 -netdev tap,id=n0,fd=5 -netdev socket,id=n1,fd=6 -netdev stream,id=n2,addr.type=fd,addr.str=7 \
 -drive file=/dev/fdset/2,format=raw -chardev socket,id=tpm,path=/run/libvirt/qemu/swtpm/1-a-swtpm.sock \
 -chardev file,id=log,path=/dev/fdset/3 -device vfio-pci,sysfsfd=8
