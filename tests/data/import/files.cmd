/usr/bin/qemu-system-x86_64 -name files -display none \
 -drive file=/srv/shared/a.qcow2,file.locking=off,if=virtio,format=qcow2 \
 -drive file.locking=off,format=raw,file=/srv/shared/b.raw,if=virtio,cache.direct=on \
 -drive file=iscsi://192.0.2.20/iqn.2026-01.net.example:vm/1,format=raw,if=virtio,file.initiator-name=iqn.2026-01.net.example:host \
 -drive file.driver=file,file.filename=/srv/shared/c.raw,format=raw,if=virtio \
 -drive 'file=json:{"driver":"raw",,"read-only":true,,"file":{"driver":"file",,"filename":"/srv/shared/d.raw"}},if=virtio' \
 -drive 'file=json:{"driver":"raw",,"file":{"driver":"file",,"filename":"/srv/shared/e.raw"}},if=virtio,readonly=on'
