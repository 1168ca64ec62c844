/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files whose last writes may outlive the QEMU that wrote them, since it is not QEMU's own threads or connections that bring them to their storage.
 *
 * The kernel's NFS client ends a killed process' wait for a direct write at once and goes on with the write, until the server has it (Linux fs/nfs/direct.c:
 * nfs_direct_wait); a FUSE daemon may write behind; a page cache is written back whenever the kernel likes. So of each VM's process what it has open for writing of
 * that kind is noted while it lives, in a file of PATHS_HELD: "MARK-PID-START-WRITER", a line each. Whoever wants to call this host silent asks held_quiet; a note of a dead
 * process goes only when each of its lines is proven (held_prove, which may hang for as long as the storage does: for a child process).
 *
 *   read   a buffered read of the same inode: NFS lets it begin only when no direct I/O of this inode is left on this host (Linux fs/nfs/io.c: nfs_block_o_direct,
 *          inode_dio_wait), and then fsync(2), which waits for what was written by the page cache and its commit
 *   sync   fsync(2): block devices not opened with O_DIRECT, loop devices, OCFS2, GFS2
 *   none   nobody here can tell: FUSE, CephFS, CIFS, 9p, NFS mounted soft, what is not known. The note stays for this boot
 */
#pragma once

#include <sys/types.h>

#include "agent/base/util.h"

enum held_proof { HELD_NOT, HELD_READ, HELD_SYNC, HELD_NONE };
enum held_block { HELD_NO_BLOCK, HELD_BLOCK, HELD_LOOP };

/* How it is proven that a file open with these flags is written no more, on a file system of that type and with those options (proc(5), mountinfo). HELD_NOT: the end of
 * its process says so. */
enum held_proof held_proof_of(const char *type, const char *options, enum held_block block, int flags);

/* Notes what the process has open now; what it has closed meanwhile is dropped, from notes of it by writers that are gone, too. mark: whose it is (format_vm_mark), 0: not known. 0 or negative errno: something may be missing. Never waits for storage. */
int held_note(pid_t pid, uint32_t mark);

enum held_for {
	HELD_FOR_DEAD,  /* none of any dead process */
	HELD_FOR_NEXT,  /* none of a dead process of that VM, or nobody knows whose: another node is to have it */
	HELD_FOR_SAME,  /* the same, on this host: what cannot be proven comes by the same client here, and does not count */
};
/* Whether no such note is left. path: NULL, or gets a file that is held. */
bool held_quiet(enum held_for what, uint32_t mark, char *path, size_t size);

/* That VM's QEMU is gone, has ended in good order, and waited for its last write. */
void held_forget(uint32_t mark, pid_t pid);

/* The names of the notes of dead processes, up to max, without those to skip (NULL: none). */
#define HELD_NAME_LEN 64
unsigned held_dead(char name[][HELD_NAME_LEN], unsigned max, bool (*skip)(const char *name));
/* Proves each line of a note, and removes it. May hang. Async-signal-safe it is not: for a process without threads. */
bool held_prove(const char *name);

/* A test's directories instead of PATHS_HELD and /proc. */
void held_use(const char *dir, const char *proc);
