/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/base/timing.h"
#include "tests/tap.h"

static const struct {
	enum timing_profile profile;
	const char *name;
	uint32_t delay, w, soft, heal, bound, silent, silent_bound;
} profiles[] = {
	/* bound = hb + 8 io + w + drain + 1000; silent_bound = silent + 5 (hb + 2 io) + 5 io + drain + 1000 */
	{ TIMING_FAST, "fast", 200, 4444, 1600, 6100, 250 + 4000 + 4444 + 500 + 1000, 10000, 10000 + 1250 + 7500 + 500 + 1000 },
	{ TIMING_STANDARD, "standard", 500, 11110, 4000, 9600, 500 + 10000 + 11110 + 1000 + 1000, 20000, 20000 + 2500 + 18750 + 1000 + 1000 },
	{ TIMING_SAFE, "safe", 1500, 33330, 12000, 25600, 1000 + 32000 + 33330 + 5000 + 1000, 50000, 50000 + 5000 + 60000 + 5000 + 1000 },
};

/* Changes to the standard profile, and the rule that must catch them. derive: recompute W and Soft first. */
static const struct {
	const char *what;
	enum timing_field field;
	uint32_t value;
	bool derive;
	enum timing_rule want;
} breaks[] = {
	{ "W one short", TIMING_W, 11109, false, TIMING_I1_W },
	{ "W exact", TIMING_W, 11110, false, TIMING_RULE_NONE },
	{ "W longer", TIMING_W, 20000, false, TIMING_RULE_NONE },
	{ "delay longer than W allows", TIMING_WD_DELAY, 501, false, TIMING_I1_W },
	{ "rate above what W allows", TIMING_CLOCK_RATE, 11, false, TIMING_I1_W },
	{ "drain too short", TIMING_DRAIN, 199, true, TIMING_I6_DRAIN },
	{ "drain just long enough", TIMING_DRAIN, 200, true, TIMING_RULE_NONE },
	{ "IO at the limit of I7", TIMING_IO, 1500, true, TIMING_RULE_NONE },
	{ "IO over it", TIMING_IO, 1501, true, TIMING_I7_FALSE_FENCE },
	{ "soft at its upper limit", TIMING_SOFT, 4000, false, TIMING_RULE_NONE },
	{ "soft too late", TIMING_SOFT, 4001, false, TIMING_SOFT_BEFORE_WATCHDOG },
	{ "soft at its lower limit", TIMING_SOFT, 3500, false, TIMING_RULE_NONE },
	{ "soft too early for a hold", TIMING_SOFT, 3499, false, TIMING_HOLD_IN_TIME },
	{ "soft a round", TIMING_SOFT, 3000, false, TIMING_HOLD_IN_TIME },
	{ "soft too early", TIMING_SOFT, 2999, false, TIMING_SOFT_AFTER_ROUND },
	{ "rate of 9 permille", TIMING_CLOCK_RATE, 9, true, TIMING_RHO },
	{ "rate of 200 permille", TIMING_CLOCK_RATE, 200, true, TIMING_RULE_NONE },
	{ "rate out of range", TIMING_CLOCK_RATE, 201, true, TIMING_RANGE },
	{ "half a second", TIMING_WD, 5500, true, TIMING_WATCHDOG_WHOLE_SECONDS },
	{ "six seconds", TIMING_WD, 6000, true, TIMING_RULE_NONE },
	{ "watchdog 0", TIMING_WD, 0, true, TIMING_RANGE },
	{ "watchdog beyond counting", TIMING_WD, UINT32_MAX, true, TIMING_RANGE },
	{ "heartbeat 49", TIMING_HB, 49, true, TIMING_RANGE },
	{ "IO 49", TIMING_IO, 49, true, TIMING_RANGE },
	{ "settle below a heartbeat", TIMING_SETTLE, 499, true, TIMING_SETTLE_ROUND },
	{ "leader below a round", TIMING_LEADER, 2999, true, TIMING_LEADER_ROUND },
	{ "leader a round", TIMING_LEADER, 3000, true, TIMING_RULE_NONE },
	{ "grace 0", TIMING_RING_GRACE, 0, true, TIMING_RANGE },
};

int main(void)
{
	struct timing t;
	enum timing_profile p = TIMING_SAFE;
	char err[512];

	for (size_t i = 0; i < ARRAY_SIZE(profiles); i++) {
		timing_of_profile(profiles[i].profile, &t);
		TAP_OK(timing_check(&t, err, sizeof(err)) == TIMING_RULE_NONE, "profile %s is safe", profiles[i].name);
		TAP_OK(t.wd_delay_ms == profiles[i].delay && t.w_ms == profiles[i].w && t.soft_ms == profiles[i].soft, "%s: derived values",
		       profiles[i].name);
		TAP_OK(t.heal_ms == profiles[i].heal, "%s: Heal is %u, want %u", profiles[i].name, t.heal_ms, profiles[i].heal);
		TAP_OK(timing_failover_bound_ms(&t) == profiles[i].bound, "%s: failover bound", profiles[i].name);
		TAP_OK(t.silent_ms == profiles[i].silent && timing_silent_bound_ms(&t) == profiles[i].silent_bound, "%s: Silent is %u, its bound %u", profiles[i].name,
		       t.silent_ms, timing_silent_bound_ms(&t));
		TAP_STR(timing_profile_name(profiles[i].profile), profiles[i].name, "name of the profile");
		TAP_OK(timing_profile_parse(profiles[i].name, &p) && p == profiles[i].profile, "name %s is parsed", profiles[i].name);
	}
	TAP_OK(!timing_profile_parse("Fast", &p) && !timing_profile_parse("", &p) && p == TIMING_SAFE, "other names are refused");
	TAP_STR(timing_profile_name((enum timing_profile)7), "unknown", "no such profile");

	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		enum timing_rule got;

		timing_of_profile(TIMING_STANDARD, &t);
		timing_set(&t, breaks[i].field, breaks[i].value);
		if (breaks[i].derive)
			timing_derive(&t);
		err[0] = '\0';
		got = timing_check(&t, err, sizeof(err));
		TAP_OK(got == breaks[i].want && (got == TIMING_RULE_NONE) == !*err, "%s: rule %d, want %d: %s", breaks[i].what, (int)got,
		       (int)breaks[i].want, err);
	}

	/* 2 * 3300 * 1.011 = 6672.6 */
	timing_of_profile(TIMING_FAST, &t);
	t.wd_ms = 3000;
	t.wd_delay_ms = timing_wd_delay_default_ms(3000);
	t.rho_permille = 11;
	timing_derive(&t);
	TAP_OK(t.w_ms == 6673, "W is rounded up");
	TAP_OK(t.soft_ms == 2400, "a fifth of the watchdog is the margin when above 400 ms");
	t.wd_ms = 1000;
	timing_derive(&t);
	TAP_OK(t.soft_ms == 1250, "soft is never shorter than a round");
	memset(&t, 0xff, sizeof(t));
	timing_derive(&t);
	TAP_OK(t.w_ms == UINT32_MAX && t.soft_ms == UINT32_MAX && timing_failover_bound_ms(&t) == UINT32_MAX && timing_silent_bound_ms(&t) == UINT32_MAX, "all ones saturate");
	TAP_OK(timing_check(&t, err, sizeof(err)) == TIMING_RANGE, "all ones are refused");
	memset(&t, 0, sizeof(t));
	TAP_OK(timing_check(&t, err, sizeof(err)) == TIMING_RANGE, "all zero is refused");
	return tap_done();
}
