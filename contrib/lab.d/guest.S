/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lab's guest: a boot program that stamps its disk nine times a second, tells when another life of it does the same,
 * costs next to no CPU, and powers off when its power button is pressed. QEMU machine "pc"; 16-bit code, everything through the BIOS.
 *
 *   as --32 -o guest.o guest.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o guest.bin guest.o
 *
 * Disk, in sectors (labguest.py reads it):
 *   0              this program
 *   HEADER         the newest stamp
 *   EVIDENCE       "KHLE", number of records, records of 24 bytes {own token, token found, own counter, counter found}; never erased
 *   LOG_START ...  stamp number c is in sector LOG_START + c % LOG_LEN as well
 * A stamp: "KHLSTAMP", token (8 bytes, drawn at boot), counter (4), BIOS ticks since boot (4), token of the life
 * before (8), that one's counter (4).
 *
 * A header with another token than our own, once ours was written, means that two ran at once or that an old write landed late. */
	.intel_syntax noprefix
	.code16
	.text
	.globl _start

	.set HEADER, 64
	.set EVIDENCE, 65
	.set EVIDENCE_MAX, 21
	.set LOG_START, 128
	.set LOG_LEN, 7168
	.set STAMP_TICKS, 2		/* 110 ms */

	.set BIOS_TICKS, 0x46c
	.set PM1_STATUS, 0x600		/* SeaBIOS puts the PIIX4's power management here */
	.set PM1_ENABLE, 0x602
	.set PM1_CONTROL, 0x604
	.set POWER_BUTTON, 0x100
	.set SLEEP_NOW, 0x2000		/* SLP_EN with type 0: soft off */

	.set found, 0x9000		/* sector buffers */
	.set proof, 0x9200
	.set stamp, 0x9400
	.set TOKEN, 8
	.set COUNTER, 16
	.set TICKS, 20
	.set PREV_TOKEN, 24
	.set PREV_COUNTER, 32

_start:
	ljmp 0, start
start:
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	cld
	sti
	mov [drive], dl
	mov eax, [BIOS_TICKS]
	mov [boot_ticks], eax

	/* The power button only raises its status bit; its interrupt has no handler here. */
	in al, 0xa1
	or al, 2
	out 0xa1, al
	mov dx, PM1_ENABLE
	mov ax, POWER_BUTTON
	out dx, ax

	mov di, stamp
	mov cx, 256
	xor ax, ax
	rep stosw
	mov di, found
	mov eax, HEADER
	call read
	mov dword ptr [stamp], 0x534c484b	/* "KHLS" */
	mov dword ptr [stamp + 4], 0x504d4154	/* "TAMP" */
	mov eax, [found + TOKEN]
	mov [stamp + PREV_TOKEN], eax
	mov eax, [found + TOKEN + 4]
	mov [stamp + PREV_TOKEN + 4], eax
	mov eax, [found + COUNTER]
	mov [stamp + COUNTER], eax
	mov [stamp + PREV_COUNTER], eax

	/* Token: time stamp counter after a disk read whose length nobody knows, the real-time clock, the life before; then mixed. */
	mov ah, 2
	int 0x1a			/* ch:cl:dh = time of day */
	push cx
	push dx
	pop ebx
	rdtsc
	xor eax, ebx
	xor eax, [found + TOKEN + 4]
	xor edx, [found + TOKEN]
	imul eax, eax, 0x9e3779b1
	xor edx, eax
	imul edx, edx, 0x85ebca6b
	mov ebx, edx
	shr ebx, 15
	xor eax, ebx
	or al, 1			/* never zero, which is a blank disk's */
	mov [stamp + TOKEN], eax
	mov [stamp + TOKEN + 4], edx
	jmp write_stamp			/* the first stamp takes over, it compares nothing */

idle:
	hlt				/* until the next tick, 55 ms */
	mov dx, PM1_STATUS
	in ax, dx
	test ax, POWER_BUTTON
	jz no_button
	mov dx, PM1_CONTROL
	mov ax, SLEEP_NOW
	out dx, ax
no_button:
	mov eax, [BIOS_TICKS]
	sub eax, [last_ticks]
	cmp eax, STAMP_TICKS		/* unsigned: midnight's wrap stamps once too early */
	jb idle

	mov di, found
	mov eax, HEADER
	call read
	mov eax, [found + TOKEN]
	cmp eax, [stamp + TOKEN]
	jne stranger
	mov eax, [found + TOKEN + 4]
	cmp eax, [stamp + TOKEN + 4]
	je write_stamp

stranger:
	mov di, proof
	mov eax, EVIDENCE
	call read
	mov dword ptr [proof], 0x454c484b	/* "KHLE" */
	mov ax, [proof + 4]
	cmp ax, EVIDENCE_MAX
	jae write_stamp			/* full */
	inc word ptr [proof + 4]
	imul di, ax, 24
	add di, proof + 8
	mov si, stamp + TOKEN
	movsd
	movsd
	mov si, found + TOKEN
	movsd
	movsd
	mov eax, [stamp + COUNTER]
	stosd
	mov eax, [found + COUNTER]
	stosd
	cmp eax, [stamp + COUNTER]	/* go on above both, so that the log shows the two taking turns */
	jbe older
	mov [stamp + COUNTER], eax
older:
	mov di, proof
	mov eax, EVIDENCE
	call write

write_stamp:
	mov eax, [BIOS_TICKS]
	mov [last_ticks], eax
	sub eax, [boot_ticks]
	mov [stamp + TICKS], eax
	inc dword ptr [stamp + COUNTER]
	mov di, stamp
	mov eax, HEADER
	call write
	mov eax, [stamp + COUNTER]
	xor edx, edx
	mov ebx, LOG_LEN
	div ebx
	lea eax, [edx + LOG_START]
	call write
	jmp idle

/* Sector eax from or to the buffer di. An error is tried again at the next tick, for ever. */
read:
	mov byte ptr [function], 0x42
	jmp disk
write:
	mov byte ptr [function], 0x43
disk:
	mov [packet_lba], eax
	mov [packet_buffer], di
disk_again:
	mov word ptr [packet_count], 1	/* the BIOS puts what it has done here */
	mov si, offset packet
	mov dl, [drive]
	mov ah, [function]
	xor al, al
	push di
	int 0x13
	pop di
	jnc disk_done
	hlt
	jmp disk_again
disk_done:
	ret

	.balign 4
packet:
	.byte 16, 0
packet_count:
	.word 1
packet_buffer:
	.word 0, 0
packet_lba:
	.long 0, 0
boot_ticks:
	.long 0
last_ticks:
	.long 0
drive:
	.byte 0
function:
	.byte 0

	.org 510
	.word 0xaa55
