/usr/bin/qemu-system-x86_64 -name 'two words' -uuid 1234 -m 1000.5k -smp 0 -set drive.d.file=/x \
 -loadvm s1 -snapshot -preconfig -machine q35,smp.cpus=4 -hda disk.img
