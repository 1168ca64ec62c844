/* SPDX-License-Identifier: GPL-2.0-or-later */
/* volume test: the command, what it concludes from the measurement, and how it says so. */
#include <errno.h>
#include <inttypes.h>

#include "agent/ctl.h"
#include "agent/ctl_voltest.h"
#include "storage/volume.h"

#define SECONDS_DEFAULT 60
#define SECONDS_SHORT 10
#define OP_MS 5000        /* beyond this an answer helps no profile; with a longer IO= configured, that */
#define DRAIN_MS 1000     /* with no timings configured */
#define NODE_LIMIT 16     /* as volume init takes by default */
#define JUDGED_MAX (TIMING_PROFILE_COUNT + 1)

struct judged {
	const char *name;
	struct timing timing;
	struct voltest_verdict verdict;
};

struct report {
	const struct ctl *c;
	struct conf conf;
	bool has_conf;
	struct voltest_run run;
	struct voltest_summary write, read;
	struct judged judged[JUDGED_MAX];
	size_t n_judged, chosen; /* chosen: what the exit code is about */
	bool fit;
};

static void judge(struct report *r)
{
	static const char *const own = "configured";
	struct voltest_run *x = &r->run;
	enum timing_profile profile = r->has_conf ? r->conf.profile : TIMING_STANDARD;

	r->write.errors = x->write.errors;
	r->write.timeouts = x->write.timeouts;
	r->read.errors = x->read.errors;
	r->read.timeouts = x->read.timeouts;
	voltest_summarise(x->write.us, x->write.n, &r->write);
	voltest_summarise(x->read.us, x->read.n, &r->read);
	for (size_t i = 0; i < TIMING_PROFILE_COUNT; i++) {
		r->judged[i].name = timing_profile_name((enum timing_profile)i);
		timing_of_profile((enum timing_profile)i, &r->judged[i].timing);
	}
	r->n_judged = TIMING_PROFILE_COUNT;
	r->chosen = (size_t)profile;
	if (r->has_conf && memcmp(&r->conf.timing, &r->judged[profile].timing, sizeof(r->conf.timing)) != 0) { /* [Timing] changes it */
		r->chosen = r->n_judged++;
		r->judged[r->chosen].name = own;
		r->judged[r->chosen].timing = r->conf.timing;
	}
	for (size_t i = 0; i < r->n_judged; i++) {
		struct judged *j = &r->judged[i];

		voltest_judge(&j->timing, j->name, &r->write, &r->read, &j->verdict);
		if (j->verdict.fit && x->problems.n > 0) {
			j->verdict.fit = false;
			(void)snprintf(j->verdict.why, sizeof(j->verdict.why), "fast enough, but see the problems below");
		}
	}
	r->fit = r->judged[r->chosen].verdict.fit && !x->interrupted;
}

static void conclude_iscsi(struct voltest_run *x, const struct probe_iscsi *p)
{
	if (p->write_protected == PROBE_YES)
		voltest_note(&x->problems, "the LUN is write protected");
	if (p->write_cache == PROBE_YES)
		voltest_note(&x->warnings, "its write cache is on and may be volatile (mode page 8, WCE)%s; switch it off, or be sure that it has a battery",
			     p->fua == PROBE_NO ? ", and it does not know FUA" : "; heartbeats are written with FUA, guests may rely on flushes");
	if (p->thin == PROBE_YES)
		voltest_note(&x->warnings, "the LUN is thin: where its pool runs full, writes fail");
	if (p->physical_block_size > FORMAT_BLOCK)
		voltest_note(&x->warnings, "its physical blocks of %" PRIu32 " bytes are larger than a heartbeat: every write is a read and a write",
			     p->physical_block_size);
	if (p->pr == PROBE_NO)
		voltest_note(&x->warnings, "no persistent reservations: fencing by them is not possible here");
}

static void conclude_nfs(struct voltest_run *x, const struct probe_nfs *p)
{
	if (p->read_only == PROBE_YES)
		voltest_note(&x->problems, "read-only: the server refuses to open the file for writing");
	if (p->sync_writes == PROBE_NO)
		voltest_note(&x->problems, "a write that asked for FILE_SYNC was not answered FILE_SYNC: what is acknowledged may be lost");
	if (p->used < p->size && p->size > 0)
		voltest_note(&x->warnings, "the file is sparse (%" PRIu64 " of %" PRIu64 " KiB): where its file system runs full, writes fail", p->used >> 10,
			     p->size >> 10);
}

static void conclude_path(struct voltest_run *x, const struct probe_path *p)
{
	if (p->read_only == PROBE_YES)
		voltest_note(&x->problems, "read-only: it cannot be opened for writing");
	if (p->o_direct == PROBE_NO)
		voltest_note(&x->problems, "its file system (%s) does not know O_DIRECT", *p->fs ? p->fs : "of unknown kind");
	else if (p->o_direct == PROBE_YES && p->alignment == 0)
		voltest_note(&x->problems, "O_DIRECT takes neither 512 nor 4096 bytes");
	if (p->shared == PROBE_NO)
		voltest_note(&x->warnings, "not shared storage? As a rule %s%s is seen by one host alone", p->is_block ? "" : "a file system of type ",
			     *p->fs ? p->fs : "this");
	if (p->write_cache == PROBE_YES)
		voltest_note(&x->warnings, "the device has a write cache (\"write back\"): volatile unless it has a battery");
	if (!p->is_block && p->used < p->size)
		voltest_note(&x->warnings, "the file is sparse (%" PRIu64 " of %" PRIu64 " KiB): where its file system runs full, writes fail", p->used >> 10,
			     p->size >> 10);
	if (p->physical_sector_size > FORMAT_BLOCK)
		voltest_note(&x->warnings, "its physical sectors of %" PRIu32 " bytes are larger than a heartbeat: every write is a read and a write",
			     p->physical_sector_size);
}

static void conclude_mixes(struct voltest_run *x)
{
	const struct voltest_mixes *m = &x->mixes;
	enum voltest_atomicity a = voltest_judge_mixes(m);

	if (a == VOLTEST_FATAL && m->lasting > 0)
		voltest_note(&x->problems, "a block was a mix of two writes and stayed so after both were acknowledged");
	else if (a == VOLTEST_FATAL)
		voltest_note(&x->problems, "%" PRIu32 " of %" PRIu32 " reads beside writes got parts of two within the first 512 bytes: not even sectors are "
			     "atomic", m->mixed_first, m->reads);
	else if (a == VOLTEST_NOT_ATOMIC)
		voltest_note(&x->warnings, "a block of 4096 bytes is not atomic: %" PRIu32 " of %" PRIu32 " reads beside writes got parts of two, %" PRIu32
			     " of them within the first 512 bytes, and all were whole when read again; two buffers a block are there for this",
			     m->mixed, m->reads, m->mixed_first);
}

static void conclude(struct voltest_run *x)
{
	if (x->probe.kind == PROBE_ISCSI)
		conclude_iscsi(x, &x->probe.iscsi);
	else if (x->probe.kind == PROBE_NFS)
		conclude_nfs(x, &x->probe.nfs);
	else if (x->probe.kind == PROBE_PATH)
		conclude_path(x, &x->probe.path);
	if (*x->probe.error)
		voltest_note(&x->warnings, "not all could be asked: %s", x->probe.error);
	if (x->content == VOLTEST_CONTENT_FOREIGN && !x->wrote && x->problems.n == 0)
		voltest_note(&x->problems, "only reads were measured: %s. If nothing on it is needed, add --force-write %s",
			     x->foreign_why == FORMAT_E_FOREIGN ? "it holds data that is not ours" : format_status_name(x->foreign_why), x->url);
	conclude_mixes(x);
	if (x->interrupted)
		voltest_note(&x->warnings, "interrupted after %" PRIu32 " s", x->elapsed_ms / 1000);
	else if (x->opened && x->seconds < SECONDS_SHORT)
		voltest_note(&x->warnings, "%" PRIu32 " s are short for a judgement; a minute is better, an hour under the usual load better still", x->seconds);
}

static const char *content_name(enum voltest_content content)
{
	static const char *const names[] = { [VOLTEST_CONTENT_UNKNOWN] = "unknown", [VOLTEST_CONTENT_BLANK] = "blank",
					     [VOLTEST_CONTENT_CLUSTER] = "cluster", [VOLTEST_CONTENT_FOREIGN] = "foreign" };

	return names[content];
}

static void add_str(json_object *o, const char *key, const char *value) { json_object_object_add(o, key, json_object_new_string(value)); }
static void add_int(json_object *o, const char *key, uint64_t value) { json_object_object_add(o, key, json_object_new_int64((int64_t)value)); }
static void add_bool(json_object *o, const char *key, bool value) { json_object_object_add(o, key, json_object_new_boolean(value)); }

/* true, false or null */
static void add_answer(json_object *o, const char *key, enum probe_answer a)
{
	json_object_object_add(o, key, a == PROBE_UNKNOWN ? NULL : json_object_new_boolean(a == PROBE_YES));
}

static void add_notes(json_object *o, const char *key, const struct voltest_notes *notes)
{
	json_object *array = json_object_new_array();

	for (unsigned i = 0; i < notes->n; i++)
		json_object_array_add(array, json_object_new_string(notes->text[i]));
	json_object_object_add(o, key, array);
}

static void add_summary(json_object *o, const char *key, const struct voltest_summary *s, uint32_t bytes)
{
	json_object *m = json_object_new_object();

	add_int(m, "bytes", bytes);
	add_int(m, "count", s->n);
	add_int(m, "errors", s->errors);
	add_int(m, "timeouts", s->timeouts);
	if (s->n > 0) {
		add_int(m, "median_us", s->median_us);
		add_int(m, "p99_us", s->p99_us);
		add_int(m, "worst_us", s->worst_us);
	}
	json_object_object_add(o, key, m);
}

static json_object *target_json(const struct probe_result *r)
{
	json_object *o = json_object_new_object();

	if (r->kind == PROBE_ISCSI) {
		const struct probe_iscsi *p = &r->iscsi;

		add_str(o, "kind", "iscsi");
		add_str(o, "vendor", p->vendor);
		add_str(o, "product", p->product);
		add_str(o, "revision", p->revision);
		add_int(o, "block_size", p->block_size);
		add_int(o, "physical_block_size", p->physical_block_size);
		add_answer(o, "thin", p->thin);
		add_answer(o, "write_protected", p->write_protected);
		add_answer(o, "fua", p->fua);
		add_answer(o, "write_cache", p->write_cache);
		add_answer(o, "report_supported_opcodes", p->report_opcodes);
		add_answer(o, "compare_and_write", p->compare_and_write);
		add_answer(o, "persistent_reservations", p->pr);
		add_answer(o, "pr_write_exclusive_registrants_only", p->pr_wero);
		add_answer(o, "pr_through_power_loss", p->pr_persistent);
		add_answer(o, "pr_preempt", p->pr_preempt);
		add_answer(o, "pr_preempt_and_abort", p->pr_preempt_abort);
		add_answer(o, "abort_task", p->abort_task);
	} else if (r->kind == PROBE_NFS) {
		const struct probe_nfs *p = &r->nfs;

		add_str(o, "kind", "nfs");
		add_int(o, "version", p->version);
		add_int(o, "read_max", p->read_max);
		add_int(o, "write_max", p->write_max);
		add_answer(o, "read_only", p->read_only);
		add_answer(o, "sync_writes", p->sync_writes);
		add_int(o, "size", p->size);
		add_int(o, "used", p->used);
		add_int(o, "available", p->available);
	} else if (r->kind == PROBE_PATH) {
		const struct probe_path *p = &r->path;

		add_str(o, "kind", p->is_block ? "block device" : "file");
		add_str(o, p->is_block ? "bus" : "file_system", p->fs);
		add_answer(o, "shared", p->shared);
		add_answer(o, "o_direct", p->o_direct);
		add_int(o, "alignment", p->alignment);
		add_answer(o, "read_only", p->read_only);
		add_answer(o, "write_cache", p->write_cache);
		if (p->is_block) {
			add_int(o, "sector_size", p->sector_size);
			add_int(o, "physical_sector_size", p->physical_sector_size);
		} else
			add_int(o, "used", p->used);
	}
	return o;
}

static void print_json(const struct report *r)
{
	const struct voltest_run *x = &r->run;
	json_object *o = json_object_new_object(), *profiles = json_object_new_array(), *atomic = json_object_new_object();

	add_int(o, "api_version", CTL_API_VERSION);
	add_bool(o, "ok", r->fit);
	add_str(o, "url", x->url);
	add_str(o, "content", content_name(x->content));
	if (x->content == VOLTEST_CONTENT_CLUSTER)
		add_str(o, "cluster", x->sb.cluster_name);
	add_int(o, "size", x->size);
	add_bool(o, "written", x->wrote);
	add_int(o, "elapsed_ms", x->elapsed_ms);
	add_int(o, "rounds", x->rounds);
	add_int(o, "deadline_ms", x->op_ms);
	add_int(o, "sessions_lost", x->sessions_lost);
	add_summary(o, "write", &r->write, FORMAT_BLOCK);
	add_summary(o, "read", &r->read, x->table_len);
	for (size_t i = 0; i < r->n_judged; i++) {
		const struct judged *j = &r->judged[i];
		json_object *p = json_object_new_object();

		add_str(p, "name", j->name);
		add_bool(p, "fit", j->verdict.fit);
		add_int(p, "io_ms", j->timing.io_ms);
		add_str(p, "why", j->verdict.why);
		json_object_array_add(profiles, p);
	}
	json_object_object_add(o, "profiles", profiles);
	add_str(o, "judged_for", r->judged[r->chosen].name);
	add_int(o, "needed_io_ms", r->judged[r->chosen].verdict.needed_io_ms);
	add_int(o, "worst_factor", VOLTEST_WORST_FACTOR);
	add_int(o, "p99_factor", VOLTEST_P99_FACTOR);
	add_int(atomic, "writes", x->mixes.writes);
	add_int(atomic, "reads", x->mixes.reads);
	add_int(atomic, "mixed", x->mixes.mixed);
	add_int(atomic, "mixed_first_512", x->mixes.mixed_first);
	add_int(atomic, "lasting", x->mixes.lasting);
	json_object_object_add(o, "atomicity", atomic);
	json_object_object_add(o, "target", target_json(&x->probe));
	add_notes(o, "problems", &x->problems);
	add_notes(o, "warnings", &x->warnings);
	ctl_print_json(o);
	json_object_put(o);
}

static void add_us(struct ctl_table *t, unsigned column, const struct voltest_summary *s, uint32_t us)
{
	if (s->n == 0)
		ctl_table_add(t, column, CTL_PLAIN, "-");
	else
		ctl_table_add(t, column, CTL_PLAIN, "%" PRIu32 ".%02" PRIu32 " ms", us / 1000, us % 1000 / 10);
}

static void print_latencies(const struct report *r)
{
	struct ctl_table t = { .title = { "WHAT", "COUNT", "MEDIAN", "99TH", "WORST", "ERRORS", "TIME-OUTS" }, .columns = 7 };
	const struct { const char *what; uint32_t bytes; const struct voltest_summary *s; } rows[] = {
		{ "write", FORMAT_BLOCK, &r->write }, { "read", r->run.table_len, &r->read },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct voltest_summary *s = rows[i].s;

		ctl_table_add(&t, 0, CTL_PLAIN, "%s %" PRIu32 " KiB", rows[i].what, rows[i].bytes >> 10);
		ctl_table_add(&t, 1, CTL_PLAIN, "%zu", s->n);
		add_us(&t, 2, s, s->median_us);
		add_us(&t, 3, s, s->p99_us);
		add_us(&t, 4, s, s->worst_us);
		ctl_table_add(&t, 5, s->errors ? CTL_RED : CTL_PLAIN, "%" PRIu32, s->errors);
		ctl_table_add(&t, 6, s->timeouts ? CTL_RED : CTL_PLAIN, "%" PRIu32, s->timeouts);
	}
	ctl_table_print(r->c, &t);
}

static void print_verdicts(const struct report *r)
{
	struct ctl_table t = { .title = { "PROFILE", "IO", "FIT", "WHY" }, .columns = 4 };

	for (size_t i = 0; i < r->n_judged; i++) {
		const struct judged *j = &r->judged[i];

		ctl_table_add(&t, 0, CTL_PLAIN, "%s", j->name);
		ctl_table_add(&t, 1, CTL_PLAIN, "%" PRIu32 " ms", j->timing.io_ms);
		ctl_table_add(&t, 2, j->verdict.fit ? CTL_GREEN : CTL_RED, "%s", j->verdict.fit ? "yes" : "no");
		ctl_table_add(&t, 3, CTL_PLAIN, "%s", j->verdict.why);
	}
	ctl_table_print(r->c, &t);
	(void)printf("Fit: IO is at least %d times the worst and %d times the 99th percentile of writes and of reads.\n", VOLTEST_WORST_FACTOR,
		     VOLTEST_P99_FACTOR);
}

/* The target in words: the same members as in JSON, so that both forms tell the same. */
static void print_target(const struct probe_result *probe)
{
	json_object *o = target_json(probe);

	json_object_object_foreach(o, key, value) {
		char words[64];

		(void)str_copy(words, sizeof(words), key);
		for (char *p = words; *p; p++)
			if (*p == '_')
				*p = ' ';
		(void)printf("  %-38s", words);
		if (!value)
			(void)printf("unknown");
		else if (json_object_is_type(value, json_type_boolean))
			(void)printf("%s", json_object_get_boolean(value) ? "yes" : "no");
		else
			ctl_put(json_object_get_string(value));
		(void)printf("\n");
	}
	json_object_put(o);
}

static void print_notes(const struct ctl *c, const struct voltest_notes *notes, const char *mark, enum ctl_color color)
{
	for (unsigned i = 0; i < notes->n; i++) {
		ctl_color_on(c, color);
		(void)printf("%s ", mark);
		ctl_color_off(c);
		ctl_put(notes->text[i]);
		(void)printf("\n");
	}
}

static void print_text(const struct report *r)
{
	const struct voltest_run *x = &r->run;
	const char *name = r->judged[r->chosen].name;

	ctl_put(x->url);
	if (x->opened) {
		(void)printf(": %" PRIu64 " MiB, ", x->size >> 20);
		if (x->content == VOLTEST_CONTENT_CLUSTER) {
			(void)printf("of cluster ");
			ctl_put(x->sb.cluster_name);
		} else
			(void)printf("%s", content_name(x->content));
		(void)printf("; %" PRIu32 " rounds in %" PRIu32 ".%" PRIu32 " s, %s\n\n", x->rounds, x->elapsed_ms / 1000, x->elapsed_ms % 1000 / 100,
			     x->wrote ? "written to in its scratch area only" : "nothing was written");
		print_latencies(r);
		(void)printf("\n");
		print_verdicts(r);
		if (x->mixes.reads > 0)
			(void)printf("\nAtomicity: %" PRIu32 " writes of 4 KiB beside %" PRIu32 " reads of them: %" PRIu32 " mixed, %" PRIu32
				     " of them within the first 512 bytes, %" PRIu32 " lasting.\n", x->mixes.writes, x->mixes.reads, x->mixes.mixed,
				     x->mixes.mixed_first, x->mixes.lasting);
		(void)printf("\nWhat is behind it:\n");
		print_target(&x->probe);
	}
	(void)printf("\n");
	print_notes(r->c, &x->problems, "!!", CTL_RED);
	print_notes(r->c, &x->warnings, "*", CTL_YELLOW);
	ctl_color_on(r->c, r->fit ? CTL_GREEN : CTL_RED);
	(void)printf("%s for %s%s", r->fit ? "Fit" : "Not fit", streq(name, "configured") ? "the configured timings" : name,
		     streq(name, "configured") ? "" : r->has_conf ? ", the configured profile" : "; no profile is configured here");
	ctl_color_off(r->c);
	(void)printf(".\n");
}

/* A host that is not configured yet is where a volume is tested first. */
static int load(struct report *r)
{
	char err[CTL_ERROR_LEN] = "";
	int result = conf_load(r->c->config_dir, NULL, &r->conf, err, sizeof(err));

	r->has_conf = result == 0;
	return result == 0 || result == -ENOENT ? 0 : ctl_fail(r->c, CTL_CONFIG, "%s", err);
}

int ctl_volume_test(const struct ctl *c)
{
	struct report *r = calloc(1, sizeof(*r));
	struct voltest_run *x;
	char err[CTL_ERROR_LEN] = "";
	int result;

	CHECK(r);
	x = &r->run;
	r->c = c;
	x->url = c->args[0];
	result = load(r);
	if (result == 0 && volume_url_check(x->url, err, sizeof(err)) < 0)
		result = ctl_fail(c, CTL_USAGE, "%s", err);
	if (result == 0 && c->force_write && !streq(c->force_write, x->url))
		result = ctl_fail(c, CTL_USAGE, "--force-write %.200s is not the volume to be tested; nothing was read or written", c->force_write);
	if (result != 0) {
		free(r);
		return result;
	}
	x->secret_file = r->has_conf && *r->conf.secret_file ? r->conf.secret_file : NULL;
	x->seconds = c->seconds ? c->seconds : SECONDS_DEFAULT;
	x->op_ms = r->has_conf ? MAX(OP_MS, r->conf.timing.io_ms) : OP_MS;
	x->drain_ms = r->has_conf ? MAX(DRAIN_MS, r->conf.timing.drain_ms) : DRAIN_MS;
	x->node_limit = r->has_conf ? MAX(NODE_LIMIT, r->conf.nodes[r->conf.n_nodes - 1].id) : NODE_LIMIT;
	x->force_write = c->force_write;
	if (!c->json && isatty(STDOUT_FILENO)) {
		(void)printf("measuring for %" PRIu32 " s ...\n", x->seconds);
		(void)fflush(stdout);
	}
	voltest_run(x);
	conclude(x);
	judge(r);
	if (c->json)
		print_json(r);
	else
		print_text(r);
	free(x->write.us);
	free(x->read.us);
	result = r->fit ? CTL_OK : CTL_FAILED;
	free(r);
	return result;
}
