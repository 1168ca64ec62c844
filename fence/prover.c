/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fence/prover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/base/held.h"
#include "fence/vmslice.h"

#define LOOK_MS 50     /* for notes to prove */
#define NOTE_LOOKS 10  /* so many of these, for new files */
#define AGAIN_LOOKS 20 /* what could not be proven is tried again after so many */
#define CHILDREN 64
#define NOTES 1024     /* under proof, or to be tried again later: these keep no other from its turn */

struct proof {
	pid_t pid; /* 0: it has ended, without success */
	unsigned wait;
	char name[HELD_NAME_LEN];
};

static struct proof proof[NOTES];
static unsigned n_proofs, n_children;

static void reap(void)
{
	for (unsigned i = 0; i < n_proofs;) {
		struct proof *p = &proof[i];
		int status;

		if (p->pid != 0 && waitpid(p->pid, &status, WNOHANG) == p->pid) {
			p->pid = 0;
			n_children--;
			p->wait = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : AGAIN_LOOKS;
		}
		if (p->pid == 0 && p->wait-- == 0)
			*p = proof[--n_proofs];
		else
			i++;
	}
}

static bool is_known(const char *name)
{
	for (unsigned i = 0; i < n_proofs; i++)
		if (streq(proof[i].name, name))
			return true;
	return false;
}

static void prove(const char *name)
{
	struct proof *p;
	pid_t pid;

	if (n_children == CHILDREN || n_proofs == NOTES || (pid = fork()) < 0)
		return; /* its turn comes */
	if (pid == 0)
		_exit(held_prove(name) ? 0 : 1);
	n_children++;
	p = &proof[n_proofs++];
	*p = (struct proof){ .pid = pid };
	(void)str_copy(p->name, sizeof(p->name), name);
}

static _Noreturn void run(struct vmslice *s)
{
	const struct timespec pause = { .tv_nsec = LOOK_MS * NS_PER_MS };
	static char dead[CHILDREN][HELD_NAME_LEN];

	for (unsigned look = 0;; look++) {
		unsigned n;

		if (look % NOTE_LOOKS == 0)
			(void)vmslice_note(s);
		reap();
		n = held_dead(dead, CHILDREN, is_known);
		for (unsigned i = 0; i < n; i++)
			prove(dead[i]);
		(void)nanosleep(&pause, NULL);
	}
}

static void die_with(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		_exit(1);
}

/* The one that works may die of anything, this one of nothing but a signal. */
static _Noreturn void keep_running(struct vmslice *s)
{
	const struct timespec pause = { .tv_nsec = LOOK_MS * NS_PER_MS };
	pid_t self = getpid(), pid;

	for (;;) {
		pid = fork();
		if (pid == 0) {
			die_with(self);
			run(s);
		}
		if (pid > 0)
			(void)waitpid(pid, NULL, 0);
		(void)nanosleep(&pause, NULL);
	}
}

int prover_start(const char *root)
{
	pid_t keeper = getpid(), pid = fork();
	struct vmslice *s;

	if (pid != 0)
		return pid < 0 ? -errno : 0;
	die_with(keeper);
	/* Among what systemd holds for the keeper is the watchdog: a copy of that here would keep it from being closed. */
	if (syscall(SYS_close_range, 3, ~0U, 0) < 0)
		for (int fd = 3; fd < 1024; fd++)
			(void)close(fd);
	if (vmslice_new(NULL, root, &s) < 0)
		_exit(1);
	(void)prctl(PR_SET_NAME, "ha-keeper-proof");
	keep_running(s);
}
