/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/volset.h"

#include <errno.h>
#include <stdio.h>

#include "agent/base/log.h"
#include "storage/setchange.h"

#define AGAIN_MS 1000
#define STALE "stale: of an earlier volume set than the other volumes; `ha-ctl volume list` shows it, `ha-ctl volume replace` takes it in again"
#define OTHER_SET "it is of another set (initialised again, or another cluster's)"

struct member {
	struct volset *set;
	unsigned index;
	struct volume *volume;
	struct volume_io io;
	void *buf;
	bool reading, has_sb, good;
	enum volset_state state;
	struct superblock sb;
	char reason[VOLUME_REASON_LEN];
	qb_loop_timer_handle timer;
};

struct volset {
	qb_loop_t *loop;
	const struct conf *conf;
	struct volset_callbacks cb;
	void *user;
	struct member member[CONF_MAX_VOLUMES];
	unsigned n;
	bool known;
	struct superblock sb;
};

void *volset_buffer(size_t len)
{
	void *p = NULL;

	CHECK(posix_memalign(&p, VOLUME_ALIGN, len) == 0);
	memset(p, 0, len);
	return p;
}

static void set_reason(struct member *m, const char *reason)
{
	if (streq(m->reason, reason))
		return;
	(void)str_copy(m->reason, sizeof(m->reason), reason);
	if (*reason)
		log_warning("volume %s: %s", volume_url(m->volume), reason);
	else
		log_info("volume %s: ready", volume_url(m->volume));
}

static void set_state(struct member *m, enum volset_state state, const char *reason)
{
	bool good = state == VOLSET_GOOD, changed = m->good != good;

	m->good = good;
	m->state = state;
	set_reason(m, reason);
	if (changed && m->set->known)
		m->set->cb.volume(m->set->user, m->index, good, m->reason);
}

/* Is this superblock the one the configuration speaks of? */
static const char *mismatch(const struct volset *s, unsigned index, const struct superblock *sb, enum volset_state *ret)
{
	*ret = VOLSET_FOREIGN;
	if (!streq(sb->cluster_name, s->conf->cluster))
		return "it belongs to a cluster of another name: check Volumes= and [Cluster] Name=";
	if (sb->frozen)
		*ret = VOLSET_WAITING;
	if (sb->frozen)
		return "the volume set is being changed, or it was taken out of the set: run the interrupted `ha-ctl volume` command again, or put the volume that "
		       "took its place into Volumes=";
	if (sb->n_volumes != s->n)
		return "its volume set has another number of volumes than Volumes=";
	if (sb->index != index)
		return "it is at another place in the set: put Volumes= in the order `ha-ctl volume list` of a healthy node shows";
	if (memcmp(&sb->timing, &s->conf->timing, sizeof(sb->timing)) != 0)
		return "it was initialised with other timings: all nodes and volumes must share Profile= and [Timing]";
	for (size_t i = 0; i < s->conf->n_nodes; i++)
		if (s->conf->nodes[i].id > sb->node_limit)
			return "a node of Nodes= has an id above the volume's node limit";
	if (s->known && memcmp(s->sb.cluster, sb->cluster, 16) == 0 && sb->generation < s->sb.generation) {
		*ret = VOLSET_STALE;
		return STALE;
	}
	if (s->known && !superblock_same_set(&s->sb, sb))
		return OTHER_SET;
	*ret = VOLSET_GOOD;
	return NULL;
}

static void read_superblock(void *data);

static void try_again(struct member *m)
{
	if (!m->timer)
		(void)qb_loop_timer_add(m->set->loop, QB_LOOP_LOW, AGAIN_MS * NS_PER_MS, m, read_superblock, &m->timer);
}

static void look_for_agreement(struct volset *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		unsigned agree = 0;

		if (!s->member[i].has_sb)
			continue;
		for (unsigned j = 0; j < s->n; j++)
			agree += s->member[j].has_sb && superblock_same_set(&s->member[i].sb, &s->member[j].sb);
		if (agree < format_fence_quorum(s->n))
			continue;
		s->known = true;
		s->sb = s->member[i].sb;
		s->cb.known(s->user, &s->sb);
		for (unsigned j = 0; j < s->n; j++) {
			struct member *m = &s->member[j];

			if (m->has_sb && superblock_same_set(&s->sb, &m->sb))
				set_state(m, VOLSET_GOOD, "");
			else if (m->has_sb) {
				m->state = m->sb.generation < s->sb.generation ? VOLSET_STALE : VOLSET_FOREIGN;
				set_reason(m, m->sb.generation < s->sb.generation ? STALE : OTHER_SET);
				m->has_sb = false;
				try_again(m); /* it may have been read before the set changed */
			}
		}
		return;
	}
}

static void judge(struct member *m, enum volume_result result)
{
	struct superblock sb;
	enum format_status st;
	char text[VOLUME_REASON_LEN];
	const char *why = NULL;
	enum volset_state state = VOLSET_FOREIGN;

	if (result != VOLUME_OK) {
		(void)snprintf(text, sizeof(text), "superblock not read: %s", volume_result_name(result));
		set_state(m, VOLSET_AWAY, text);
		try_again(m);
		return;
	}
	st = setchange_superblock(m->buf, &sb);
	/* Whoever had no session to it while the set changed finds out here, and from nobody else. Merely frozen it may be taken back. */
	if (st == FORMAT_OK && m->set->known && m->set->cb.changed && memcmp(sb.cluster, m->set->sb.cluster, 16) == 0 && sb.generation > m->set->sb.generation)
		m->set->cb.changed(m->set->user);
	if (st != FORMAT_OK) {
		(void)snprintf(text, sizeof(text), "no superblock (%s)%s", format_status_name(st),
			       st == FORMAT_E_BLANK ? ": if it is new, run `ha-ctl volume init` on one node" : "");
		why = text;
		if (st == FORMAT_E_CRC) /* torn or rotten: may be whole when it is read again */
			state = VOLSET_AWAY;
	} else {
		why = mismatch(m->set, m->index, &sb, &state);
	}
	if (why) {
		m->has_sb = false;
		set_state(m, state, why);
		try_again(m);
		return;
	}
	m->has_sb = true;
	m->sb = sb;
	if (m->set->known)
		set_state(m, VOLSET_GOOD, "");
	else
		look_for_agreement(m->set);
	if (m->set->known)
		return;
	m->state = VOLSET_WAITING;
	try_again(m);
}

static void on_done(struct volume_io *io, enum volume_result result)
{
	struct member *m = io->user;

	judge(m, result);
}

static void on_settled(struct volume_io *io, enum volume_settle how)
{
	struct member *m = io->user;

	m->reading = false;
}

static void read_superblock(void *data)
{
	struct member *m = data;

	m->timer = 0;
	if (volume_state(m->volume) != VOLUME_READY)
		return;
	if (m->reading) {
		try_again(m);
		return;
	}
	m->reading = true;
	m->io = (struct volume_io){
		.buf = m->buf, .offset = 0, .len = 2 * FORMAT_BLOCK, .timeout_ms = m->set->conf->timing.io_ms,
		.done = on_done, .settled = on_settled, .user = m,
	};
	volume_read(m->volume, &m->io);
}

/* What it was last seen to hold it will hold when it is back. */
static void lost(struct member *m, const char *reason) { set_state(m, m->state == VOLSET_GOOD ? VOLSET_AWAY : m->state, reason); }

static void on_state(struct volume *v, enum volume_state state, const char *reason, void *user)
{
	struct member *m = user;

	if (state == VOLUME_READY)
		read_superblock(m);
	else if (state == VOLUME_BACKOFF)
		lost(m, reason);
	else if (m->good)
		lost(m, "connecting"); /* while trying again, what went wrong before stays on show */
}

static void on_path(struct volume *v, unsigned i, void *user)
{
	struct volume_path p;

	volume_path(v, i, &p);
	if (p.is_used)
		log_info("volume %s: path %s: in use", volume_url(v), p.address);
	else
		log_warning("volume %s: path %s: %s", volume_url(v), p.address, p.reason);
}

int volset_new(qb_loop_t *loop, const struct conf *conf, const struct volset_callbacks *cb, void *user, struct volset **ret, char *err,
	       size_t err_size)
{
	struct volume_options options = {
		.connect_timeout_ms = MAX(conf->timing.io_ms, 1000U),
		.backoff_ms = 100,
		.secret_file = conf->secret_file[0] ? conf->secret_file : NULL,
		.on_path = on_path,
	};
	struct volset *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct volset){ .loop = loop, .conf = conf, .cb = *cb, .user = user, .n = (unsigned)conf->n_volumes };
	for (unsigned i = 0; i < s->n; i++) {
		struct member *m = &s->member[i];

		m->set = s;
		m->index = i;
		m->state = VOLSET_AWAY;
		m->buf = volset_buffer(2 * FORMAT_BLOCK);
		(void)str_copy(m->reason, sizeof(m->reason), "connecting");
		r = volume_open(loop, conf->volumes[i], &options, on_state, m, &m->volume, err, err_size);
		if (r < 0) {
			volset_free(s);
			return r;
		}
	}
	*ret = s;
	return 0;
}

void volset_free(struct volset *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->n; i++) {
		struct member *m = &s->member[i];

		if (m->timer)
			(void)qb_loop_timer_del(s->loop, m->timer);
		volume_close(m->volume);
		if (m->reading)
			return; /* a path in D state still owns the buffer: all of it is leaked on purpose */
		free(m->buf);
	}
	free(s);
}

/* The superblock was seen to have changed by somebody who reads it anyway. */
void volset_changed(struct volset *s, unsigned index)
{
	struct member *m = &s->member[index];

	m->has_sb = false;
	set_state(m, VOLSET_WAITING, "the volume set has changed");
	try_again(m);
}

struct volume *volset_volume(const struct volset *s, unsigned index) { return s->member[index].volume; }
bool volset_good(const struct volset *s, unsigned index) { return s->member[index].good; }
enum volset_state volset_state(const struct volset *s, unsigned index) { return s->member[index].state; }
const char *volset_reason(const struct volset *s, unsigned index) { return s->member[index].reason; }

bool volset_lost_path(const struct volset *s, unsigned index, char *ret, size_t size)
{
	const struct volume *v = s->member[index].volume;

	ret[0] = '\0';
	for (unsigned i = 0; v && i < volume_paths(v); i++) {
		struct volume_path p;

		volume_path(v, i, &p);
		if (p.is_used)
			continue;
		(void)snprintf(ret, size, "path %s: %s", p.address, *p.reason ? p.reason : "connecting");
		return true;
	}
	return false;
}
