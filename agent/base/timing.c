/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/timing.h"

#include <inttypes.h>
#include <stdio.h>

#define RHO_MIN_PERMILLE 10
#define DRAIN_MIN_MS 200      /* one minimal TCP retransmission: a segment on its way when its sender died may still come */
#define SOFT_MARGIN_MIN_MS 400 /* to kill qemu and see it reaped before the watchdog acts */
#define BIT(f) (UINT32_C(1) << (f))

#define VALUE(name, member, least, most, is_permille) { name, offsetof(struct timing, member), least, most, is_permille }

const struct timing_value timing_values[TIMING_FIELD_COUNT] = {
	[TIMING_WD] = VALUE("Watchdog", wd_ms, 1000, 600 * 1000, false),
	[TIMING_WD_DELAY] = VALUE("WatchdogDelay", wd_delay_ms, 10, 60 * 1000, false),
	[TIMING_HB] = VALUE("Heartbeat", hb_ms, 50, 60 * 1000, false),
	[TIMING_IO] = VALUE("IO", io_ms, 50, 60 * 1000, false),
	[TIMING_DRAIN] = VALUE("Drain", drain_ms, 0, 600 * 1000, false),
	[TIMING_CLOCK_RATE] = VALUE("ClockRate", rho_permille, 0, 200, true),
	[TIMING_SETTLE] = VALUE("RingSettle", settle_ms, 0, 600 * 1000, false),
	[TIMING_RING_GRACE] = VALUE("RingGrace", ring_grace_ms, 500, 3600 * 1000, false),
	[TIMING_LEADER] = VALUE("Leader", leader_ms, 0, 600 * 1000, false),
	[TIMING_W] = VALUE("W", w_ms, 1, 3600 * 1000, false),
	[TIMING_SOFT] = VALUE("Soft", soft_ms, 1, 600 * 1000, false),
	[TIMING_HEAL] = VALUE("Heal", heal_ms, 1, 3600 * 1000, false),
	[TIMING_SILENT] = VALUE("Silent", silent_ms, 0, 3600 * 1000, false),
};

static const char *const profile_names[TIMING_PROFILE_COUNT] = { "fast", "standard", "safe" };

static const struct {
	const char *name, *text, *remedy;
	uint32_t fields;
} rules[TIMING_RULE_COUNT] = {
	[TIMING_I1_W] = { "I1", "W >= 2 (Watchdog + WatchdogDelay) (1 + ClockRate)",
			  "a node taken for dead might still run; W must be derived from these values",
			  BIT(TIMING_WD) | BIT(TIMING_WD_DELAY) | BIT(TIMING_CLOCK_RATE) },
	[TIMING_I6_DRAIN] = { "I6", "Drain >= 200 ms", "a write of a dead node might land after its VM started elsewhere; raise Drain=",
			      BIT(TIMING_DRAIN) },
	[TIMING_I7_FALSE_FENCE] = { "I7", "Watchdog >= Heartbeat + 3 IO",
				    "healthy nodes with slow storage would be fenced; raise Watchdog=, or lower IO= or Heartbeat=",
				    BIT(TIMING_WD) | BIT(TIMING_HB) | BIT(TIMING_IO) },
	[TIMING_SOFT_BEFORE_WATCHDOG] = { "soft-1", "Watchdog >= Soft + the larger of Watchdog / 5 and 400 ms",
					  "the watchdog would reset the host before its VMs are killed; raise Watchdog=, or lower Heartbeat= or IO=",
					  BIT(TIMING_WD) | BIT(TIMING_HB) | BIT(TIMING_IO) },
	[TIMING_SOFT_AFTER_ROUND] = { "soft-2", "Soft >= Heartbeat + 2 IO",
				      "VMs would be killed while a round may still succeed; raise Watchdog=, or lower Heartbeat= or IO=",
				      BIT(TIMING_WD) | BIT(TIMING_HB) | BIT(TIMING_IO) },
	[TIMING_HOLD_IN_TIME] = { "hold", "Soft >= 2 Heartbeat + 2 IO",
				  "an outage of the storage for everybody would kill VMs before all nodes know of it; raise Watchdog=, or lower Heartbeat= or IO=",
				  BIT(TIMING_WD) | BIT(TIMING_HB) | BIT(TIMING_IO) },
	[TIMING_RHO] = { "rho", "ClockRate >= 10 permille", "clocks may differ by more; raise ClockRate= to 1% or more",
			 BIT(TIMING_CLOCK_RATE) },
	[TIMING_WATCHDOG_WHOLE_SECONDS] = { "seconds", "Watchdog is a whole number of seconds",
					    "a watchdog driver counts whole seconds; round Watchdog= up", BIT(TIMING_WD) },
	[TIMING_SETTLE_ROUND] = { "settle", "RingSettle >= Heartbeat",
				  "ring views change no faster than heartbeats; raise RingSettle= or lower Heartbeat=",
				  BIT(TIMING_SETTLE) | BIT(TIMING_HB) },
	[TIMING_LEADER_ROUND] = { "leader", "Leader >= Heartbeat + 2 IO",
				  "a healthy leader with slow storage would be replaced; raise Leader=, or lower Heartbeat= or IO=",
				  BIT(TIMING_LEADER) | BIT(TIMING_HB) | BIT(TIMING_IO) },
};

const char *timing_profile_name(enum timing_profile p)
{
	return (unsigned int)p < TIMING_PROFILE_COUNT ? profile_names[p] : "unknown";
}

bool timing_profile_parse(const char *s, enum timing_profile *ret)
{
	for (size_t i = 0; i < TIMING_PROFILE_COUNT; i++)
		if (streq(s, profile_names[i])) {
			*ret = (enum timing_profile)i;
			return true;
		}
	return false;
}

void timing_of_profile(enum timing_profile p, struct timing *ret)
{
	static const struct timing profiles[TIMING_PROFILE_COUNT] = {
		[TIMING_FAST] = { .wd_ms = 2000, .hb_ms = 250, .io_ms = 500, .drain_ms = 500, .rho_permille = RHO_MIN_PERMILLE,
				  .settle_ms = 750, .ring_grace_ms = 5000, .leader_ms = 2000 },
		[TIMING_STANDARD] = { .wd_ms = 5000, .hb_ms = 500, .io_ms = 1250, .drain_ms = 1000, .rho_permille = RHO_MIN_PERMILLE,
				      .settle_ms = 1500, .ring_grace_ms = 10000, .leader_ms = 4000 },
		[TIMING_SAFE] = { .wd_ms = 15000, .hb_ms = 1000, .io_ms = 4000, .drain_ms = 5000, .rho_permille = RHO_MIN_PERMILLE,
				  .settle_ms = 3000, .ring_grace_ms = 30000, .leader_ms = 10000 },
	};

	CHECK((unsigned int)p < TIMING_PROFILE_COUNT);
	*ret = profiles[p];
	ret->wd_delay_ms = timing_wd_delay_default_ms(ret->wd_ms);
	timing_derive(ret);
}

uint32_t timing_wd_delay_default_ms(uint32_t wd_ms) { return wd_ms / 10; }

uint32_t timing_get(const struct timing *t, enum timing_field f)
{
	uint32_t value;

	CHECK((unsigned int)f < TIMING_FIELD_COUNT);
	memcpy(&value, (const char *)t + timing_values[f].offset, sizeof(value));
	return value;
}

void timing_set(struct timing *t, enum timing_field f, uint32_t value)
{
	CHECK((unsigned int)f < TIMING_FIELD_COUNT);
	memcpy((char *)t + timing_values[f].offset, &value, sizeof(value));
}

static uint64_t w_needed_ms(const struct timing *t)
{
	/* passes 2^64 only with values that timing_check_ranges refuses */
	uint64_t sum = (uint64_t)t->wd_ms + t->wd_delay_ms, factor = 2 * (1000 + (uint64_t)t->rho_permille), product;

	if (__builtin_mul_overflow(sum, factor, &product))
		return UINT64_MAX;
	return product / 1000 + (product % 1000 != 0);
}

static uint64_t soft_margin_ms(const struct timing *t) { return MAX(t->wd_ms / 5, SOFT_MARGIN_MIN_MS); }

static uint64_t round_ms(const struct timing *t, unsigned int ios) { return (uint64_t)t->hb_ms + (uint64_t)ios * t->io_ms; }

void timing_derive(struct timing *t)
{
	uint64_t margin = soft_margin_ms(t), soft = t->wd_ms > margin ? t->wd_ms - margin : 0;

	soft = MAX(soft, round_ms(t, 2));
	t->w_ms = (uint32_t)MIN(w_needed_ms(t), UINT32_MAX);
	t->soft_ms = (uint32_t)MIN(soft, UINT32_MAX);
	t->heal_ms = timing_heal_ms(t);
	t->silent_ms = timing_silent_ms(t);
}

void timing_rule_eval(const struct timing *t, enum timing_rule rule, struct timing_rule_state *ret)
{
	struct timing_rule_state s = { .unit = "ms", .left = t->wd_ms };

	CHECK(rule > TIMING_RULE_NONE && rule < TIMING_RULE_COUNT && rule != TIMING_RANGE);
	s.name = rules[rule].name;
	s.text = rules[rule].text;
	s.fields = rules[rule].fields;
	switch (rule) {
	case TIMING_I1_W:
		s.left = t->w_ms;
		s.right = w_needed_ms(t);
		break;
	case TIMING_I6_DRAIN:
		s.left = t->drain_ms;
		s.right = DRAIN_MIN_MS;
		break;
	case TIMING_I7_FALSE_FENCE:
		s.right = round_ms(t, 3);
		break;
	case TIMING_SOFT_BEFORE_WATCHDOG:
		s.right = t->soft_ms + soft_margin_ms(t);
		break;
	case TIMING_SOFT_AFTER_ROUND:
		s.left = t->soft_ms;
		s.right = round_ms(t, 2);
		break;
	case TIMING_HOLD_IN_TIME:
		s.left = t->soft_ms;
		s.right = t->hb_ms + round_ms(t, 2);
		break;
	case TIMING_RHO:
		s.left = t->rho_permille;
		s.right = RHO_MIN_PERMILLE;
		s.unit = "permille";
		break;
	case TIMING_WATCHDOG_WHOLE_SECONDS: /* written as an inequality: not below itself rounded up */
		s.right = ((uint64_t)t->wd_ms + MS_PER_S - 1) / MS_PER_S * MS_PER_S;
		break;
	case TIMING_SETTLE_ROUND:
		s.left = t->settle_ms;
		s.right = t->hb_ms;
		break;
	case TIMING_LEADER_ROUND:
		s.left = t->leader_ms;
		s.right = round_ms(t, 2);
		break;
	case TIMING_RULE_NONE:
	case TIMING_RANGE:
	case TIMING_RULE_COUNT:
		break;
	}
	*ret = s;
}

enum timing_field timing_check_ranges(const struct timing *t, char *err, size_t err_size)
{
	for (unsigned int f = 0; f < TIMING_FIELD_COUNT; f++) {
		const struct timing_value *v = &timing_values[f];
		const char *unit = v->permille ? "permille" : "ms";
		uint32_t value = timing_get(t, (enum timing_field)f);

		if (value >= v->min && value <= v->max)
			continue;
		(void)snprintf(err, err_size, "%s is %" PRIu32 " %s; use %" PRIu32 " to %" PRIu32 " %s", v->key, value, unit, v->min, v->max, unit);
		return (enum timing_field)f;
	}
	return TIMING_FIELD_COUNT;
}

enum timing_rule timing_check(const struct timing *t, char *err, size_t err_size)
{
	if (timing_check_ranges(t, err, err_size) != TIMING_FIELD_COUNT)
		return TIMING_RANGE;
	for (unsigned int i = TIMING_RULE_NONE + 1; i < TIMING_RULE_COUNT; i++) {
		struct timing_rule_state s;

		if (i == TIMING_RANGE)
			continue;
		timing_rule_eval(t, (enum timing_rule)i, &s);
		if (s.left >= s.right)
			continue;
		(void)snprintf(err, err_size, "%s is broken: %s, but %" PRIu64 " %s is less than %" PRIu64 " %s: %s", s.name, s.text, s.left, s.unit,
			       s.right, s.unit, rules[i].remedy);
		return (enum timing_rule)i;
	}
	return TIMING_RULE_NONE;
}

uint32_t timing_failover_bound_ms(const struct timing *t)
{
	uint64_t sum = round_ms(t, 1 + TIMING_TAKEOVER_IOS) + t->w_ms + t->drain_ms + TIMING_START_MS;

	return (uint32_t)MIN(sum, UINT32_MAX);
}

uint32_t timing_silent_bound_ms(const struct timing *t)
{
	uint64_t sum = t->silent_ms + TIMING_SILENT_ROUNDS * round_ms(t, 2) + (uint64_t)TIMING_SILENT_IOS * t->io_ms + t->drain_ms + TIMING_START_MS;

	return (uint32_t)MIN(sum, UINT32_MAX);
}
