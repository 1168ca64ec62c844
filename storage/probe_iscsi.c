/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Asks a LUN by a session of its own, one command after the other. As in volume_iscsi.c the library neither reconnects nor sends again, and the
 * deadline is ours: its own time-outs are wall clock. Commands that could hurt others (reservations, resets) are never sent. */
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <poll.h>
#include <stdio.h>

#include "storage/probe_job.h"

#define TRIES 8 /* unit attentions of a new session */
#define ABORTED_READ_LEN (256U * 1024)
#define SLICE_MS 50
#define TASK_MANAGEMENT_NEVER UINT32_MAX
#define OPCODE_PR_OUT 0x5f
#define OPCODE_COMPARE_AND_WRITE 0x89

struct asker {
	const struct probe_job *job;
	struct iscsi_context *context;
	int lun;
	bool is_broken; /* no more answers will come */
	/* the answer waited for */
	bool is_answered;
	int status;
	struct scsi_task *task; /* of the last command; freed with the next */
	uint32_t response;      /* of a task management function */
	unsigned char both[2 * VOLUME_ALIGN]; /* of COMPARE AND WRITE; the library sends from here */
};

static void on_answer(struct iscsi_context *context, int status, void *data, void *user)
{
	struct asker *a = user;

	a->is_answered = true;
	a->status = status;
	a->task = data;
}

static void on_connection(struct iscsi_context *context, int status, void *data, void *user)
{
	struct asker *a = user;

	a->is_answered = true;
	a->status = status;
}

static void on_management(struct iscsi_context *context, int status, void *data, void *user)
{
	struct asker *a = user;

	a->is_answered = true;
	a->status = status;
	if (status == SCSI_STATUS_GOOD && data)
		memcpy(&a->response, data, sizeof(a->response));
}

static void on_aborted_read(struct iscsi_context *context, int status, void *data, void *user)
{
	scsi_free_scsi_task(data);
}

/* Until the answer is there; false if it never will be. */
static bool await(struct asker *a)
{
	while (!a->is_answered && !a->is_broken) {
		int events = iscsi_which_events(a->context), fd = iscsi_get_fd(a->context);
		int64_t left = probe_left_ms(a->job);
		struct pollfd p = { .fd = events ? fd : -1, .events = (short)events };

		if (left == 0) {
			probe_fail(a->job, "no answer in time");
			a->is_broken = true;
			break;
		}
		(void)poll(&p, 1, (int)MIN(left, SLICE_MS));
		if (iscsi_service(a->context, p.revents) < 0 && !a->is_answered) {
			probe_fail(a->job, "connection lost: %.100s", iscsi_get_error(a->context));
			a->is_broken = true;
		}
	}
	return a->is_answered;
}

static void forget_task(struct asker *a)
{
	if (a->task)
		scsi_free_scsi_task(a->task);
	a->task = NULL;
	a->is_answered = false;
}

/* Sends a command by send until it is not a unit attention that answers. The task, if the status is GOOD. */
static struct scsi_task *ask(struct asker *a, struct scsi_task *(*send)(struct asker *a))
{
	for (unsigned i = 0; i < TRIES && !a->is_broken; i++) {
		forget_task(a);
		if (!send(a)) {
			probe_fail(a->job, "cannot send a command: %.100s", iscsi_get_error(a->context));
			a->is_broken = true;
			return NULL;
		}
		if (!await(a) || !a->task)
			return NULL;
		if (a->status == SCSI_STATUS_GOOD)
			return a->task;
		if (a->status == SCSI_STATUS_CANCELLED || a->status == SCSI_STATUS_ERROR || a->status == SCSI_STATUS_TIMEOUT) {
			probe_fail(a->job, "connection lost: %.100s", iscsi_get_error(a->context));
			a->is_broken = true;
			return NULL;
		}
		if (a->status != SCSI_STATUS_CHECK_CONDITION || a->task->sense.key != SCSI_SENSE_UNIT_ATTENTION)
			return NULL;
	}
	return NULL;
}

/* The LUN said that it does not know this; what else went wrong proves nothing. */
static bool is_refused(const struct asker *a)
{
	return a->is_answered && a->task && a->status == SCSI_STATUS_CHECK_CONDITION && a->task->sense.key == SCSI_SENSE_ILLEGAL_REQUEST;
}

static struct scsi_task *send_ready(struct asker *a) { return iscsi_testunitready_task(a->context, a->lun, on_answer, a); }
static struct scsi_task *send_inquiry(struct asker *a) { return iscsi_inquiry_task(a->context, a->lun, 0, 0, 255, on_answer, a); }
static struct scsi_task *send_capacity(struct asker *a) { return iscsi_readcapacity16_task(a->context, a->lun, on_answer, a); }

static struct scsi_task *send_cache(struct asker *a)
{
	return iscsi_modesense6_task(a->context, a->lun, 0, SCSI_MODESENSE_PC_CURRENT, SCSI_MODEPAGE_CACHING, 0, 255, on_answer, a);
}

static struct scsi_task *send_pr(struct asker *a)
{
	return iscsi_persistent_reserve_in_task(a->context, a->lun, SCSI_PERSISTENT_RESERVE_REPORT_CAPABILITIES, 255, on_answer, a);
}

static struct scsi_task *send_opcode_compare(struct asker *a)
{
	return iscsi_report_supported_opcodes_task(a->context, a->lun, 0, SCSI_REPORT_SUPPORTING_OPCODE, OPCODE_COMPARE_AND_WRITE, 0, 255, on_answer, a);
}

static struct scsi_task *send_opcode_preempt(struct asker *a)
{
	return iscsi_report_supported_opcodes_task(a->context, a->lun, 0, SCSI_REPORT_SUPPORTING_SERVICEACTION, OPCODE_PR_OUT,
						   SCSI_PERSISTENT_RESERVE_PREEMPT, 255, on_answer, a);
}

static struct scsi_task *send_opcode_preempt_abort(struct asker *a)
{
	return iscsi_report_supported_opcodes_task(a->context, a->lun, 0, SCSI_REPORT_SUPPORTING_SERVICEACTION, OPCODE_PR_OUT,
						   SCSI_PERSISTENT_RESERVE_PREEMPT_AND_ABORT, 255, on_answer, a);
}

/* Compares a block of ours with what is in it and writes the same: nothing changes, whatever the answer. */
static struct scsi_task *send_compare(struct asker *a)
{
	const struct probe_iscsi *p = &a->job->ret->iscsi;

	memcpy(a->both, a->job->scratch, p->block_size);
	memcpy(a->both + p->block_size, a->job->scratch, p->block_size);
	return iscsi_compareandwrite_task(a->context, a->lun, a->job->offset / p->block_size, a->both, 2 * p->block_size, (int)p->block_size, 0, 0, 1, 0,
					  0, on_answer, a);
}

/* Fixed width fields of blanks at the end, from the target: printable characters only. */
static void take_text(char ret[PROBE_TEXT_LEN], const char *s, size_t n)
{
	size_t len = 0;

	for (size_t i = 0; i < n && s[i] && len < PROBE_TEXT_LEN - 1; i++)
		ret[len++] = s[i] >= ' ' && s[i] < 0x7f ? s[i] : '?';
	while (len > 0 && ret[len - 1] == ' ')
		len--;
	ret[len] = '\0';
}

static void take_capacity(struct asker *a, struct probe_iscsi *p)
{
	struct scsi_task *task = ask(a, send_capacity);
	const struct scsi_readcapacity16 *c = task ? scsi_datain_unmarshall(task) : NULL;

	if (!c || (c->block_length != 512 && c->block_length != VOLUME_ALIGN))
		return;
	p->block_size = c->block_length;
	p->physical_block_size = c->block_length << MIN(c->lbppbe, 15);
	p->thin = c->lbpme ? PROBE_YES : PROBE_NO;
}

static void take_cache(struct asker *a, struct probe_iscsi *p)
{
	struct scsi_task *task = ask(a, send_cache);
	struct scsi_mode_sense *m = task ? scsi_datain_unmarshall(task) : NULL;
	const struct scsi_mode_page *page = m ? scsi_modesense_get_page(m, SCSI_MODEPAGE_CACHING, 0) : NULL;

	if (m) {
		p->write_protected = m->device_specific_parameter & 0x80 ? PROBE_YES : PROBE_NO;
		p->fua = m->device_specific_parameter & 0x10 ? PROBE_YES : PROBE_NO;
	}
	if (page)
		p->write_cache = page->caching.wce ? PROBE_YES : PROBE_NO;
}

static enum probe_answer opcode_answer(struct asker *a, struct probe_iscsi *p, struct scsi_task *(*send)(struct asker *a))
{
	struct scsi_task *task = ask(a, send);
	const struct scsi_report_supported_op_codes_one_command *one = task ? scsi_datain_unmarshall(task) : NULL;

	if (!one) {
		/* some do not know the option that asks for a service action: that says nothing of the command as such */
		if (is_refused(a) && p->report_opcodes == PROBE_UNKNOWN)
			p->report_opcodes = PROBE_NO;
		return PROBE_UNKNOWN;
	}
	p->report_opcodes = PROBE_YES;
	return one->support == 3 || one->support == 5 ? PROBE_YES : one->support == 1 ? PROBE_NO : PROBE_UNKNOWN;
}

static void take_compare(struct asker *a, struct probe_iscsi *p)
{
	p->compare_and_write = opcode_answer(a, p, send_opcode_compare);
	if (!a->job->scratch || p->block_size == 0 || p->compare_and_write == PROBE_NO)
		return;
	if (ask(a, send_compare) || (a->is_answered && a->status == SCSI_STATUS_CHECK_CONDITION && a->task &&
				     a->task->sense.key == SCSI_SENSE_MISCOMPARE))
		p->compare_and_write = PROBE_YES;
	else if (is_refused(a))
		p->compare_and_write = PROBE_NO; /* whatever it says of itself */
}

static void take_pr(struct asker *a, struct probe_iscsi *p)
{
	struct scsi_task *task = ask(a, send_pr);
	const struct scsi_persistent_reserve_in_report_capabilities *c = task ? scsi_datain_unmarshall(task) : NULL;

	if (!c) {
		if (is_refused(a))
			p->pr = PROBE_NO;
		return;
	}
	p->pr = PROBE_YES;
	p->pr_persistent = c->ptpl_c ? PROBE_YES : PROBE_NO;
	if (c->tmv)
		p->pr_wero = c->persistent_reservation_type_mask & SCSI_PR_TYPE_MASK_WR_EX_RO ? PROBE_YES : PROBE_NO;
	p->pr_preempt = opcode_answer(a, p, send_opcode_preempt);
	p->pr_preempt_abort = opcode_answer(a, p, send_opcode_preempt_abort);
}

/* Aborts a read of ours. "No such task" is an answer of a target that knows the function, too: the read may have been faster. */
static void take_abort(struct asker *a, struct probe_iscsi *p)
{
	struct scsi_task *task;

	if (a->is_broken || p->block_size == 0)
		return;
	forget_task(a);
	task = iscsi_read16_task(a->context, a->lun, 0, ABORTED_READ_LEN, (int)p->block_size, 0, 0, 0, 0, 0, on_aborted_read, NULL);
	if (!task)
		return;
	a->response = TASK_MANAGEMENT_NEVER;
	if (iscsi_task_mgmt_abort_task_async(a->context, task, on_management, a) < 0 || !await(a) || a->status != SCSI_STATUS_GOOD)
		return;
	if (a->response == ISCSI_TMR_FUNC_COMPLETE || a->response == ISCSI_TMR_TASK_DOES_NOT_EXIST)
		p->abort_task = PROBE_YES;
	else if (a->response != TASK_MANAGEMENT_NEVER)
		p->abort_task = PROBE_NO;
}

static bool log_in(struct asker *a)
{
	const struct volume_address *address = a->job->address;
	const struct volume_secrets *secrets = a->job->secrets;
	char portal[INET6_ADDRSTRLEN + 16];
	int r = 0;

	iscsi_set_noautoreconnect(a->context, 1);
	r |= iscsi_set_targetname(a->context, address->target);
	r |= iscsi_set_session_type(a->context, ISCSI_SESSION_NORMAL);
	if (*secrets->user)
		r |= iscsi_set_initiator_username_pwd(a->context, secrets->user, secrets->password);
	if (*secrets->target_user)
		r |= iscsi_set_target_username_pwd(a->context, secrets->target_user, secrets->target_password);
	(void)snprintf(portal, sizeof(portal), address->is_ipv6 ? "[%s]:%u" : "%s:%u", address->host, address->port);
	if (r == 0 && iscsi_connect_async(a->context, portal, on_connection, a) == 0 && await(a) && a->status == SCSI_STATUS_GOOD) {
		a->is_answered = false;
		if (iscsi_login_async(a->context, on_connection, a) == 0 && await(a) && a->status == SCSI_STATUS_GOOD)
			return true;
	}
	probe_fail(a->job, "cannot log in: %.100s", iscsi_get_error(a->context));
	return false;
}

static void ask_all(struct asker *a, struct probe_iscsi *p)
{
	const struct scsi_inquiry_standard *i;
	struct scsi_task *task;

	(void)ask(a, send_ready);
	task = ask(a, send_inquiry);
	i = task ? scsi_datain_unmarshall(task) : NULL;
	if (i) {
		take_text(p->vendor, i->vendor_identification, sizeof(i->vendor_identification));
		take_text(p->product, i->product_identification, sizeof(i->product_identification));
		take_text(p->revision, i->product_revision_level, sizeof(i->product_revision_level));
	}
	take_capacity(a, p);
	take_cache(a, p);
	take_compare(a, p);
	take_pr(a, p);
	take_abort(a, p); /* last: an aborted read may leave the session in a state of its own */
}

void probe_iscsi(const struct probe_job *job)
{
	struct asker a = { .job = job, .lun = job->address->lun, .context = iscsi_create_context(job->initiator) };

	job->ret->kind = PROBE_ISCSI;
	if (!a.context) {
		probe_fail(job, "out of memory");
		return;
	}
	if (log_in(&a))
		ask_all(&a, &job->ret->iscsi);
	forget_task(&a);
	net_discard_on_close(iscsi_get_fd(a.context));
	(void)iscsi_destroy_context(a.context); /* makes the callbacks of what is still under way */
	forget_task(&a);
}
