/* SPDX-License-Identifier: GPL-2.0-or-later */
/* iSCSI LUNs by libiscsi (RFC 7143, SBC-3). One disposable context a session: the library may neither reconnect nor send again.
 *
 *   log in -> TEST UNIT READY (unit attentions of a new nexus are taken here) -> INQUIRY -> READ CAPACITY(16) -> ready
 *                       to be written: -> MODE SENSE of the caching page, and
 *                       one of several paths: -> INQUIRY page 83h, which LUN it is, before it is ready
 *
 * Writes must be stable. They carry FUA, but not where the LUN says that it does not know FUA and has no write cache: LIO refuses FUA then.
 *
 * A status from the target is an answer; CANCELLED, TIMEOUT and ERROR come from the library and mean that the session is over. */
#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdio.h>

#include "storage/backend.h"

#define UNIT_ATTENTIONS_MAX 8
#define PART_MAX (512U * 1024) /* below the transfer limits targets are known to have */

#define IDENTITY_PAGE_MAX 1024
#define ASCQ_INVALID_FIELD 0x2400
#define ASCQ_MODE_CHANGED 0x2a01
#define ASCQ_CAPACITY_CHANGED 0x2a09
#define ASCQ_INQUIRY_CHANGED 0x3f03
#define ASCQ_LUNS_CHANGED 0x3f0e

#define MODE_DPOFUA 0x10 /* device-specific parameter of a disk (SBC-3) */

struct iscsi_session {
	struct volume *v;
	struct iscsi_context *context;
	struct net_watch watch;
	unsigned attentions;
	uint32_t block_size;
	uint64_t size;
	bool is_closing;
	bool is_write_through; /* written without FUA */
	bool has_cache_only;   /* it says that it has a write cache, and does not know FUA; which it may take all the same */
};

static void send_test(struct iscsi_session *s);
static int iscsi_session_submit(struct volume *v, struct volume_part *part);

static void sync_watch(struct iscsi_session *s)
{
	net_watch_set(&s->watch, s->v->is_lost ? -1 : iscsi_get_fd(s->context), iscsi_which_events(s->context));
}

/* Without the name of the library's function in front. A closed connection leaves the text of the last SENSE there. */
static const char *library_error(struct iscsi_session *s)
{
	const char *text = iscsi_get_error(s->context);

	if (text && strncmp(text, "iscsi_service: ", 15) == 0)
		text += 15;
	return text && *text && strncmp(text, "SENSE", 5) != 0 ? text : "connection closed";
}

static void session_service(void *user, int revents)
{
	struct iscsi_session *s = user;

	if (s->v->is_lost)
		return;
	if (iscsi_service(s->context, revents) < 0)
		backend_lost(s->v, "%s, port %u: lost while %s: %s", s->v->address.host, s->v->address.port, s->v->step, library_error(s));
	sync_watch(s);
}

static bool from_library(int status)
{
	return status == SCSI_STATUS_CANCELLED || status == SCSI_STATUS_ERROR || status == SCSI_STATUS_TIMEOUT;
}

/* Whether a command of the opening succeeded; if not, the session is lost for the reason it gives. */
static bool opening_ok(struct iscsi_session *s, int status, const struct scsi_task *task)
{
	struct volume *v = s->v;

	if (status == SCSI_STATUS_GOOD)
		return true;
	if (s->is_closing)
		return false;
	if (from_library(status))
		backend_lost(v, "%s, port %u: failed while %s: %s", v->address.host, v->address.port, v->step, library_error(s));
	else if (status == SCSI_STATUS_CHECK_CONDITION && task)
		backend_lost(v, "LUN %u of %.80s: %s failed: %s", v->address.lun, v->address.target, v->step,
			     scsi_sense_ascq_str(task->sense.ascq));
	else
		backend_lost(v, "LUN %u of %.80s: %s failed with SCSI status 0x%02x", v->address.lun, v->address.target, v->step, status);
	return false;
}

static void next_step(struct iscsi_session *s, const char *step, const struct scsi_task *sent)
{
	s->v->step = step;
	if (!sent)
		backend_lost(s->v, "out of memory while %s", step);
}

static void opened(struct iscsi_session *s)
{
	s->v->step = "in use";
	backend_ready(s->v, s->size, PART_MAX, false);
}

/* How well a designator tells LUNs apart (SPC-4, 7.8.6); 0: not at all. */
static unsigned rank(const struct scsi_inquiry_device_designator *d)
{
	if (d->association != SCSI_ASSOCIATION_LOGICAL_UNIT || d->designator_length < 1 || d->designator_length > VOLUME_IDENTITY_LEN - 1)
		return 0;
	switch (d->designator_type) {
	case SCSI_DESIGNATOR_TYPE_NAA: return 4;
	case SCSI_DESIGNATOR_TYPE_EUI_64: return 3;
	case SCSI_DESIGNATOR_TYPE_T10_VENDORT_ID: return 2;
	case SCSI_DESIGNATOR_TYPE_SCSI_NAME_STRING: return 1;
	default: return 0;
	}
}

static void on_identity(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;
	struct scsi_task *task = data;

	if (opening_ok(s, status, task)) {
		const struct scsi_inquiry_device_identification *page = scsi_datain_unmarshall(task);
		const struct scsi_inquiry_device_designator *d = page ? page->designators : NULL, *best = NULL;

		for (; d; d = d->next)
			if (rank(d) > (best ? rank(best) : 0))
				best = d;
		s->v->identity_len = best ? (unsigned)best->designator_length + 1 : 0;
		if (best) {
			s->v->identity[0] = (uint8_t)best->designator_type;
			memcpy(s->v->identity + 1, best->designator, (size_t)best->designator_length);
		}
		opened(s);
	}
	scsi_free_scsi_task(task);
}

static void identify(struct iscsi_session *s)
{
	if (s->v->is_path)
		next_step(s, "asking which LUN it is", iscsi_inquiry_task(s->context, s->v->address.lun, 1,
			  SCSI_INQUIRY_PAGECODE_DEVICE_IDENTIFICATION, IDENTITY_PAGE_MAX, on_identity, s));
	else
		opened(s);
}

/* What is refused (the command is optional, and a reservation may forbid it) or cannot be read says nothing: FUA, then. */
static void on_cache(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;
	struct scsi_task *task = data;

	if (from_library(status) || s->is_closing || (status == SCSI_STATUS_CHECK_CONDITION && task && task->sense.key == SCSI_SENSE_UNIT_ATTENTION)) {
		(void)opening_ok(s, status, task);
	} else {
		struct scsi_mode_sense *m = status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
		const struct scsi_mode_page *page = m ? scsi_modesense_get_page(m, SCSI_MODEPAGE_CACHING, 0) : NULL;
		bool no_fua = page && !(m->device_specific_parameter & MODE_DPOFUA);

		s->is_write_through = no_fua && !page->caching.wce;
		s->has_cache_only = no_fua && page->caching.wce;
		identify(s);
	}
	scsi_free_scsi_task(task);
}

static void on_capacity(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;
	struct scsi_task *task = data;

	if (opening_ok(s, status, task)) {
		const struct scsi_readcapacity16 *c = scsi_datain_unmarshall(task);

		if (!c)
			backend_lost(s->v, "LUN %u sent a capacity that cannot be read", s->v->address.lun);
		else if (c->block_length != 512 && c->block_length != 4096)
			backend_lost(s->v, "LUN %u has blocks of %u bytes; only 512 and 4096 are supported", s->v->address.lun, c->block_length);
		else if (c->returned_lba >= UINT64_MAX / c->block_length)
			backend_lost(s->v, "LUN %u sent a capacity that cannot be true", s->v->address.lun);
		else {
			s->block_size = c->block_length;
			s->size = (c->returned_lba + 1) * c->block_length;
			if (s->v->read_only)
				identify(s);
			else
				next_step(s, "asking for its write cache", iscsi_modesense6_task(context, s->v->address.lun, 0, SCSI_MODESENSE_PC_CURRENT,
					  SCSI_MODEPAGE_CACHING, 0, 255, on_cache, s));
		}
	}
	scsi_free_scsi_task(task);
}

static void on_inquiry(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;
	struct scsi_task *task = data;

	if (opening_ok(s, status, task)) {
		const struct scsi_inquiry_standard *i = scsi_datain_unmarshall(task);

		if (!i || i->qualifier != SCSI_INQUIRY_PERIPHERAL_QUALIFIER_CONNECTED ||
		    i->device_type != SCSI_INQUIRY_PERIPHERAL_DEVICE_TYPE_DIRECT_ACCESS)
			backend_lost(s->v, "%.80s has no disk as LUN %u", s->v->address.target, s->v->address.lun);
		else
			next_step(s, "reading the capacity", iscsi_readcapacity16_task(context, s->v->address.lun, on_capacity, s));
	}
	scsi_free_scsi_task(task);
}

static void on_test(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;
	struct scsi_task *task = data;

	if (status == SCSI_STATUS_CHECK_CONDITION && task && task->sense.key == SCSI_SENSE_UNIT_ATTENTION &&
	    s->attentions++ < UNIT_ATTENTIONS_MAX && !s->is_closing)
		send_test(s);
	else if (opening_ok(s, status, task))
		next_step(s, "asking what the LUN is", iscsi_inquiry_task(context, s->v->address.lun, 0, 0, 255, on_inquiry, s));
	scsi_free_scsi_task(task);
}

static void send_test(struct iscsi_session *s)
{
	next_step(s, "testing the LUN", iscsi_testunitready_task(s->context, s->v->address.lun, on_test, s));
}

static void on_login(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;

	if (opening_ok(s, status, NULL))
		send_test(s);
}

static void on_connect(struct iscsi_context *context, int status, void *data, void *user)
{
	struct iscsi_session *s = user;

	if (!opening_ok(s, status, NULL))
		return;
	s->v->step = "logging in";
	if (iscsi_login_async(context, on_login, s) < 0)
		backend_lost(s->v, "cannot log in: %s", library_error(s));
}

static int set_up(struct iscsi_session *s)
{
	const struct volume_secrets *secrets = &s->v->secrets;
	int r = 0;

	s->context = iscsi_create_context(s->v->initiator);
	if (!s->context)
		return -ENOMEM;
	iscsi_set_noautoreconnect(s->context, 1);
	r |= iscsi_set_targetname(s->context, s->v->address.target);
	r |= iscsi_set_session_type(s->context, ISCSI_SESSION_NORMAL);
	if (s->v->address.header_digest)
		r |= iscsi_set_header_digest(s->context, ISCSI_HEADER_DIGEST_CRC32C);
	if (*secrets->user)
		r |= iscsi_set_initiator_username_pwd(s->context, secrets->user, secrets->password);
	if (*secrets->target_user)
		r |= iscsi_set_target_username_pwd(s->context, secrets->target_user, secrets->target_password);
	return r ? -EINVAL : 0;
}

static void iscsi_session_open(struct volume *v)
{
	struct iscsi_session *s = calloc(1, sizeof(*s));
	char portal[INET6_ADDRSTRLEN + 16];
	int r;

	if (!s) {
		backend_lost(v, "out of memory");
		return;
	}
	s->v = v;
	s->watch.epoll_fd = -1;
	v->session = s;
	r = set_up(s);
	if (r == 0)
		r = net_watch_init(&s->watch, v->loop, session_service, s);
	if (r < 0) {
		backend_lost(v, "cannot set up an iSCSI session: %s", strerror(-r));
		return;
	}
	(void)snprintf(portal, sizeof(portal), v->address.is_ipv6 ? "[%s]:%u" : "%s:%u", v->address.host, v->address.port);
	if (iscsi_connect_async(s->context, portal, on_connect, s) < 0)
		backend_lost(v, "%s: cannot connect: %s", portal, library_error(s));
	sync_watch(s);
}

static void iscsi_session_close(struct volume *v)
{
	struct iscsi_session *s = v->session;

	if (!s)
		return;
	v->session = NULL;
	net_watch_deinit(&s->watch);
	s->is_closing = true; /* the callbacks of what is under way are made in here, with CANCELLED */
	if (s->context) {
		net_discard_on_close(iscsi_get_fd(s->context));
		(void)iscsi_destroy_context(s->context);
	}
	free(s);
}

static enum volume_result answer_of(int status, const struct scsi_task *task, struct volume_part *part)
{
	if (status == SCSI_STATUS_GOOD) {
		if (task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
			return VOLUME_E_IO;
		if (part->is_write)
			return VOLUME_OK;
		if (task->datain.size < 0 || (uint32_t)task->datain.size != part->len)
			return VOLUME_E_IO;
		memcpy(part->buf, task->datain.data, part->len);
		return VOLUME_OK;
	}
	if (status != SCSI_STATUS_CHECK_CONDITION)
		return VOLUME_E_IO;
	if (part->is_write && task->sense.key == SCSI_SENSE_DATA_PROTECTION) /* 27/07: a thin LUN ran full (SPC-4) */
		return task->sense.ascq == 0x2707 ? VOLUME_E_NOSPACE : VOLUME_E_READONLY;
	return VOLUME_E_IO;
}

/* What the target has said, for people. */
static void refusal_text(int status, const struct scsi_task *task, char *ret, size_t size)
{
	static const struct { int status; const char *text; } table[] = {
		{ SCSI_STATUS_RESERVATION_CONFLICT, "RESERVATION CONFLICT: somebody holds a reservation; sg_persist --in --read-keys tells whose, --out --clear takes a stale one away" },
		{ SCSI_STATUS_BUSY, "BUSY" }, { SCSI_STATUS_TASK_SET_FULL, "TASK SET FULL" }, { SCSI_STATUS_TASK_ABORTED, "TASK ABORTED" },
		{ SCSI_STATUS_GOOD, "less was transferred than was asked for" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].status == status) {
			(void)snprintf(ret, size, "%s", table[i].text);
			return;
		}
	if (status == SCSI_STATUS_CHECK_CONDITION) {
		const char *key = scsi_sense_key_str(task->sense.key), *ascq = scsi_sense_ascq_str(task->sense.ascq); /* NULL for what it has no name for */

		(void)snprintf(ret, size, "sense %d/%02x/%02x%s%s%s%s", (int)task->sense.key, (unsigned)task->sense.ascq >> 8, (unsigned)task->sense.ascq & 0xff, key ? ", " : "",
			       key ? key : "", ascq ? ", " : "", ascq ? ascq : "");
	} else {
		(void)snprintf(ret, size, "SCSI status 0x%02x", (unsigned)status);
	}
}

/* A unit attention says that the command was not carried out (SAM-5, 5.14), so it is sent again, unless it says that this may be another LUN now. */
static bool taken_as_attention(struct volume_part *part, int status, const struct scsi_task *task)
{
	struct volume *v = part->volume;
	const struct iscsi_session *s = v->session;

	if (status != SCSI_STATUS_CHECK_CONDITION || task->sense.key != SCSI_SENSE_UNIT_ATTENTION)
		return false;
	if (task->sense.ascq == ASCQ_INQUIRY_CHANGED || task->sense.ascq == ASCQ_CAPACITY_CHANGED || task->sense.ascq == ASCQ_LUNS_CHANGED) {
		backend_lost(v, "LUN %u of %.80s has changed: %s", v->address.lun, v->address.target, scsi_sense_ascq_str(task->sense.ascq));
		return false;
	}
	if (task->sense.ascq == ASCQ_MODE_CHANGED && s->is_write_through) {
		backend_lost(v, "LUN %u of %.80s has changed: its write cache may be on now", v->address.lun, v->address.target);
		return false;
	}
	if (part->attentions++ >= UNIT_ATTENTIONS_MAX)
		return false;
	return iscsi_session_submit(v, part) == 0;
}

/* FUA, most likely: the cache may have been switched off since it was asked for. */
static bool is_fua_refused(const struct iscsi_session *s, const struct volume_part *part, int status, const struct scsi_task *task)
{
	return part->is_write && !s->is_write_through && status == SCSI_STATUS_CHECK_CONDITION && task->sense.key == SCSI_SENSE_ILLEGAL_REQUEST &&
	       task->sense.ascq == ASCQ_INVALID_FIELD;
}

/* user is the part; its volume's session is this one, since parts end with their session. */
static void on_transfer(struct iscsi_context *context, int status, void *data, void *user)
{
	struct volume_part *part = user;
	struct iscsi_session *s = part->volume->session;
	struct scsi_task *task = data;

	if (from_library(status)) {
		if (s) /* not from iscsi_session_close: the connection broke */
			backend_lost(part->volume, "%s, port %u: lost while in use: %s", part->volume->address.host, part->volume->address.port,
				     library_error(s));
	} else if (!taken_as_attention(part, status, task)) {
		enum volume_result result = answer_of(status, task, part);
		char text[VOLUME_REASON_LEN];

		if (result == VOLUME_OK) {
			backend_part_done(part, result);
		} else {
			refusal_text(status, task, text, sizeof(text));
			if (is_fua_refused(s, part, status, task)) {
				part->volume->is_write_failing = true;
				backend_lost(part->volume, "LUN %u of %.60s refuses a write with FUA: %s", part->volume->address.lun, part->volume->address.target,
					     s->has_cache_only ? "switch its write cache off" : "its write cache is asked for anew");
			}
			backend_refused(part, result, "the target says %s", text);
		}
	}
	scsi_free_scsi_task(task);
}

static int iscsi_session_submit(struct volume *v, struct volume_part *part)
{
	struct iscsi_session *s = v->session;
	uint64_t lba = part->offset / s->block_size;
	struct scsi_task *task;

	/* not the _iov_ calls: those keep a pointer to the caller's vector */
	if (part->is_write)
		task = iscsi_write16_task(s->context, v->address.lun, lba, part->buf, part->len, (int)s->block_size, 0, 0, !s->is_write_through, 0, 0,
					  on_transfer, part);
	else
		task = iscsi_read16_task(s->context, v->address.lun, lba, part->len, (int)s->block_size, 0, 0, 0, 0, 0, on_transfer, part);
	if (!task)
		return -ENOMEM;
	sync_watch(s);
	return 0;
}

const struct backend backend_iscsi = {
	.open = iscsi_session_open,
	.submit = iscsi_session_submit,
	.close = iscsi_session_close,
};
