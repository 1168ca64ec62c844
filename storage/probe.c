/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage/probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "storage/probe_job.h"

static int64_t now_ns(void)
{
	struct timespec ts;

	CHECK(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
	return (int64_t)ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

int64_t probe_left_ms(const struct probe_job *job)
{
	int64_t left = job->deadline_ns - now_ns();

	return left > 0 ? (left + NS_PER_MS - 1) / NS_PER_MS : 0;
}

void probe_fail(const struct probe_job *job, const char *fmt, ...)
{
	va_list ap;

	if (*job->ret->error)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(job->ret->error, sizeof(job->ret->error), fmt, ap);
	va_end(ap);
}

void probe_volume(const char *url, const char *secret_file, const void *scratch, uint64_t offset, uint32_t deadline_ms, struct probe_result *ret)
{
	struct volume_address address;
	struct volume_secrets secrets = { 0 };
	char one[VOLUME_URL_LEN];
	char initiator[VOLUME_NAME_LEN];
	struct probe_job job = { .address = &address, .secrets = &secrets, .initiator = initiator, .scratch = scratch, .offset = offset,
				 .deadline_ns = now_ns() + deadline_ms * NS_PER_MS, .ret = ret };

	*ret = (struct probe_result){ .kind = PROBE_NONE };
	if (volume_address_parse(url, &address, ret->error, sizeof(ret->error)) < 0)
		return;
	if (address.kind == VOLUME_ISCSI && (volume_initiator_set(NULL, initiator, ret->error, sizeof(ret->error)) < 0 ||
					     (secret_file && volume_secrets_load(secret_file, address.target, &secrets, ret->error, sizeof(ret->error)) < 0)))
		return;
	if (address.kind == VOLUME_PATH)
		probe_path(&job);
	/* Of several addresses the first that answers all: they lead to one disk. */
	for (unsigned i = 0, n = address.n_hosts; i < n && (i == 0 || *ret->error); i++) {
		*ret = (struct probe_result){ .kind = PROBE_NONE };
		volume_url_of_path(url, i, one);
		CHECK(volume_address_parse(one, &address, ret->error, sizeof(ret->error)) == 0);
		job.deadline_ns = now_ns() + deadline_ms * NS_PER_MS;
		if (address.kind == VOLUME_ISCSI)
			probe_iscsi(&job);
		else
			probe_nfs(&job);
	}
	explicit_bzero(&secrets, sizeof(secrets));
}

const char *probe_answer_name(enum probe_answer a)
{
	return a == PROBE_YES ? "yes" : a == PROBE_NO ? "no" : "unknown";
}
