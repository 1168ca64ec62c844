/usr/bin/qemu-system-x86_64 -name a -object secret,id=masterKey0,format=raw,file=/var/lib/libvirt/qemu/domain-1-a/master-key.aes \
 -object secret,id=disk0,data=6Zy3dGhpcyBpcyBub3Q=,keyid=masterKey0,iv=AAAA,format=base64 -object secret,id=mine,data=hush \
 -drive file=rbd:pool/a:id=kvm:key=hush,format=raw -drive file=iscsi://me%hush@192.0.2.20/iqn.x/1,format=raw -spice port=5900,password=hush -iscsi user=me,password=hush
