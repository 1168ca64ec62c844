qemu-system-x86_64 -name web /srv/shared/web.raw
