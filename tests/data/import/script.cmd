#!/bin/sh
# started by cron at boot
QEMU_AUDIO_DRV=none LIBISCSI_CHAP_PASSWORD=geheim \
exec sudo /usr/bin/qemu-system-x86_64 \
	-name guest=db-1,process=db,debug-threads=on \
	-uuid 6a0f6f0e-3d2c-4c57-9d0f-0a1b2c3d4e5f \
	-M q35 -enable-kvm --cpu host \
	-m 1.5G,slots=4,maxmem=8G -smp cpus=2,sockets=1,cores=4,maxcpus=4 \
	-drive file=/srv/shared/db.qcow2,if=none,id=d0,cache=none,format=qcow2 -device virtio-blk-pci,drive=d0 \
	-drive file=/srv/shared/base.qcow2,if=virtio,readonly=on,format=qcow2 \
	-drive "file=/srv/shared/with blank's.raw,format=raw,if=virtio" \
	-drive file=iscsi://192.0.2.20/iqn.2026-01.net.example:vm/1,format=raw,if=virtio,snapshot=on \
	-drive file=nfs://192.0.2.21/export/db-log.raw,format=raw,if=virtio -cdrom /srv/shared/tools.iso \
	-drive file=rbd:pool/db,format=raw,if=virtio \
	-drive file=/srv/local/scratch.raw,format=raw,if=virtio \
	-drive file=/dev/disk/by-id/wwn-0x5000c500a1b2c3d4,format=raw,if=virtio \
	-drive if=pflash,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd,format=raw \
	-drive if=pflash,unit=1,file=/srv/shared/db_VARS.fd,format=raw \
	-netdev tap,id=n0,ifname=tap7,script=no,downscript=no -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:07 \
	-chardev socket,id=mon0,path=/run/db.mon,server,nowait -mon chardev=mon0,mode=readline \
	-chardev stdio,id=tty0,mux=on -serial chardev:tty0 -mon chardev=tty0 \
	-qmp unix:/run/db.qmp,server -monitor stdio -display gtk,zoom-to-fit=on -vnc :7 \
	-kernel /boot/vmlinuz -rtc "base=\
localtime" -append 'root=/dev/vda console=ttyS0 -- "quoted" back\slash' \
	-action reboot=shutdown,panic=none,shutdown=pause -daemonize -pidfile /run/db.pid -S -no-reboot &
