/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ha-ctl's socket, both ends.
 *
 * The agent: the first byte is its state; the rest is written to its socket. Bytes 1 to 7 are not sent but say what happens meanwhile: 1 time passes,
 * 2 another connection, 3 this one is closed, 4 the catalog's write succeeds, 5 it fails, 6 and 7 the agent gets to read. Every line gets
 * exactly one answer, whatever it says.
 * ha-ctl: the first byte has its upper bit set and chooses the command, the rest is what an agent answers. Whatever that is, no control character
 * gets to the terminal and -o json prints JSON.
 */
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <sys/socket.h>

#include "agent/ctl.h"
#include "agent/ctl_client.h"
#include "tests/fuzz/agentd.h"
#include "tests/fuzz/fuzz.h"

#define MAX_LINES 16 /* of one input */
#define ANSWER_S 30  /* above what a change may wait for a leader, or a forwarded one for its answer */
#define ANSWER_LEN (1U << 20)

int ctl_main(int argc, char **argv);

static const uint8_t *say;
static size_t say_len;
static int asked_fd = -1;

static void on_asked(int peer, int type)
{
	if (asked_fd >= 0)
		(void)close(asked_fd);
	asked_fd = peer;
	(void)send(peer, say, say_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)shutdown(peer, SHUT_WR);
}

static void (*keeper_connected)(int peer, int type);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_quiet();
	fuzz_agent_init();
	keeper_connected = fuzz_connected;
	return 0;
}

/* The agent's end. */

struct line_reader {
	int fd;
	unsigned lines, answers;
	bool open, part; /* part: bytes of an unfinished line were sent */
	size_t len;
	char buf[ANSWER_LEN];
};

static struct line_reader reader;

static void check_answer(const char *line, size_t len)
{
	struct json_tokener *tok = json_tokener_new_ex(CTL_CLIENT_MAX_DEPTH);
	json_object *o;

	o = json_tokener_parse_ex(tok, line, (int)len);
	FUZZ_CHECK(json_tokener_get_error(tok) == json_tokener_success && json_tokener_get_parse_end(tok) == len);
	FUZZ_CHECK(ctl_int(o, "api_version") == CTL_API_VERSION && ctl_get(o, "ok", json_type_boolean));
	FUZZ_CHECK(ctl_bool(o, "ok") || *ctl_str(o, "error"));
	json_object_put(o);
	json_tokener_free(tok);
}

static void read_answers(void)
{
	ssize_t n;
	char *end;

	while (reader.open && (n = recv(reader.fd, reader.buf + reader.len, sizeof(reader.buf) - reader.len, MSG_DONTWAIT)) != 0) {
		if (n < 0)
			return;
		reader.len += (size_t)n;
		while ((end = memchr(reader.buf, '\n', reader.len))) {
			size_t len = (size_t)(end - reader.buf);

			check_answer(reader.buf, len);
			reader.answers++;
			reader.len -= len + 1;
			memmove(reader.buf, end + 1, reader.len);
		}
		FUZZ_CHECK(reader.len < sizeof(reader.buf));
	}
	reader.open = false; /* it closes only what is no line at all; those are shorter here */
}

static void connect_again(void)
{
	if (reader.open)
		(void)close(reader.fd);
	reader.fd = fuzz_dial(SOCK_STREAM);
	reader.open = true;
	reader.part = false;
	reader.lines = reader.answers = 0;
	reader.len = 0;
	(void)fuzz_loop_turn();
}

static void all_answered(void)
{
	for (unsigned i = 0; i < reader.lines * ANSWER_S && reader.open && reader.answers < reader.lines; i++) {
		fuzz_loop_run(1000 * NS_PER_MS);
		(void)fuzz_agent_written(true);
		read_answers();
	}
	FUZZ_CHECK(reader.open && reader.answers == reader.lines);
}

static void put(const uint8_t *bytes, size_t n)
{
	while (n > 0) {
		ssize_t r = send(reader.fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r < 0) {
			(void)fuzz_loop_turn();
			read_answers();
			if (!reader.open || errno != EAGAIN)
				return;
			continue;
		}
		for (ssize_t i = 0; i < r; i++)
			reader.lines += bytes[i] == '\n';
		bytes += r;
		n -= (size_t)r;
	}
}

static void happen(uint8_t what)
{
	switch (what) {
	case 1:
		fuzz_loop_run(60 * NS_PER_MS);
		break;
	case 2:
		all_answered();
		connect_again();
		break;
	case 3:
		connect_again();
		break;
	case 4:
	case 5:
		(void)fuzz_agent_written(what == 4);
		break;
	default:
		(void)fuzz_loop_turn();
		break;
	}
	read_answers();
}

static void agent_end(struct fuzz_input *in, enum fuzz_agent_state state)
{
	fuzz_connected = keeper_connected;
	(void)fuzz_agent_begin(state);
	connect_again();
	while (in->left > 0 && reader.lines < MAX_LINES) {
		size_t n = 0;

		for (unsigned lines = reader.lines; n < in->left && lines < MAX_LINES && (in->p[n] < 1 || in->p[n] > 7); n++)
			lines += in->p[n] == '\n';
		put(in->p, n);
		in->p += n;
		in->left -= n;
		if (in->left > 0 && reader.lines < MAX_LINES)
			happen((uint8_t)fuzz_take(in, 1));
	}
	put((const uint8_t *)"\n", 1);
	all_answered();
	(void)close(reader.fd);
	reader.open = false;
	fuzz_agent_end();
}

/* ha-ctl's end. */

/* Control characters of C0 but line break and tabulator, DEL, and C1 as UTF-8 writes them. */
static bool has_control(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i], next = i + 1 < n ? (unsigned char)s[i + 1] : 0;

		if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7f || (c == 0xc2 && next >= 0x80 && next <= 0x9f))
			return true;
	}
	return false;
}

static void check_json(const char *text, size_t len)
{
	struct json_tokener *tok = json_tokener_new_ex(CTL_CLIENT_MAX_DEPTH + 2);
	size_t at = 0;

	while (at < len) {
		json_object *o;

		json_tokener_reset(tok);
		o = json_tokener_parse_ex(tok, text + at, (int)(len - at));
		FUZZ_CHECK(json_tokener_get_error(tok) == json_tokener_success);
		json_object_put(o);
		at += json_tokener_get_parse_end(tok);
		while (at < len && text[at] == '\n')
			at++;
	}
	json_tokener_free(tok);
}

/* `events --follow` ends with Ctrl-C only; while it sleeps it holds nothing. */
static jmp_buf interrupt;
static unsigned sleeps;

static void on_sleep(void)
{
	if (++sleeps == 3)
		longjmp(interrupt, 1);
}

static void ctl_end(struct fuzz_input *in, unsigned choice)
{
	static char *const commands[][3] = {
		{ "status" }, { "vm", "list" }, { "node", "list" }, { "vm", "show", "web" }, { "events" }, { "events", "--follow" }, { "arm" },
		{ "vm", "start", "web" },
	};
	bool json = choice & 1;
	char *argv[8] = { "ha-ctl", "-o", json ? "json" : "text" };
	char *const *words = commands[(choice >> 1) % ARRAY_SIZE(commands)];
	const char *out;
	size_t len;
	int argc = 3;
	volatile int r = CTL_OK;

	for (size_t i = 0; i < 3 && words[i]; i++)
		argv[argc++] = words[i];
	say = in->p;
	say_len = in->left;
	fuzz_connected = on_asked;
	fuzz_sleeps = on_sleep;
	optind = 0;
	fuzz_capture_begin();
	sleeps = 0;
	if (setjmp(interrupt) == 0)
		r = ctl_main(argc, argv);
	out = fuzz_capture_end(&len);
	FUZZ_CHECK(r == CTL_OK || r == CTL_FAILED || r == CTL_UNAVAILABLE || r == CTL_AGAIN);
	if (json)
		check_json(out, len);
	else
		FUZZ_CHECK(!has_control(out, len));
	(void)close(asked_fd);
	asked_fd = -1;
	fuzz_connected = keeper_connected;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	unsigned first = (unsigned)fuzz_take(&in, 1);

	if (size == 0)
		return 0;
	if (first & 0x80)
		ctl_end(&in, first & 0x7f);
	else
		agent_end(&in, first % FUZZ_AGENT_STATES);
	return 0;
}
