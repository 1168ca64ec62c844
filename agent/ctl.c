/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "agent/ctl.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>

#include "agent/base/log.h"
#include "agent/base/value.h"
#include "agent/ctl_client.h"
#include "agent/tlscert.h"
#include "storage/format.h"
#include "storage/volume.h"

enum option_bit { OPTION_FOLLOW = 1, OPTION_FORCE = 2, OPTION_NODES_MAX = 4, OPTION_WHAT = 8, OPTION_FILE = 16, OPTION_IMPORT = 32,
		  OPTION_SECONDS = 64, OPTION_FORCE_WRITE = 128, OPTION_WAIT = 256, OPTION_RETURN = 512, OPTION_PAUSE = 1024, OPTION_OFF = 2048,
		  OPTION_WHY = 4096, OPTION_LOST = 8192, OPTION_CANCEL = 16384 };

struct command {
	const char *group, *verb; /* group "" where the verb stands alone */
	const char *args;
	int min_args, max_args;
	unsigned options; /* enum option_bit */
	int (*run)(const struct ctl *c);
	const char *summary, *details;
};

static int config_show(const struct ctl *c)
{
	char err[CTL_ERROR_LEN] = "";
	int r = conf_show(c->config_dir, NULL, c->json, err, sizeof(err));

	return r == 0 ? CTL_OK : ctl_fail(c, r == -EIO ? CTL_FAILED : CTL_CONFIG, "%s", err);
}

static void print_rules(const struct timing *t)
{
	for (unsigned i = TIMING_RULE_NONE + 1; i < TIMING_RULE_COUNT; i++) {
		struct timing_rule_state s;

		if (i == TIMING_RANGE)
			continue;
		timing_rule_eval(t, (enum timing_rule)i, &s);
		(void)printf("  %-8s %s: %" PRIu64 " >= %" PRIu64 " %s\n", s.name, s.text, s.left, s.right, s.unit);
	}
}

/* Secret files: the volumes', the fence devices', which would be found out in an emergency only, and the migrations' certificates. */
static int check_secrets(const struct ctl *c, const struct conf *conf)
{
	char secrets[CONF_POWER_SECRETS], err[CTL_ERROR_LEN] = "";
	time_t until;

	if (*conf->secret_file && volume_secrets_check(conf->secret_file, err, sizeof(err)) < 0)
		return ctl_fail(c, CTL_CONFIG, "SecretFile=: %s", err);
	for (size_t i = 0; i < conf->n_power; i++) {
		int r = conf_power_secrets(conf, &conf->power[i], secrets, err, sizeof(err));

		explicit_bzero(secrets, sizeof(secrets));
		if (r < 0)
			return ctl_fail(c, CTL_CONFIG, "node %s, device %s: %s", conf_node_by_id(conf, conf->power[i].node)->name, conf->power[i].agent, err);
	}
	if (*conf->tls_dir && conf->self_id != 0 && tlscert_check(conf->tls_dir, conf->self_name, time(NULL), &until, err, sizeof(err)) < 0)
		return ctl_fail(c, CTL_CONFIG, "TLSDirectory=: %s", err);
	return 0;
}

static int config_check(const struct ctl *c)
{
	struct conf conf;
	json_object *o;
	uint32_t bound, silent;
	int r = ctl_conf(c, &conf);

	if (r != 0)
		return r;
	r = check_secrets(c, &conf);
	if (r != 0)
		return r;
	bound = timing_failover_bound_ms(&conf.timing);
	silent = timing_silent_bound_ms(&conf.timing);
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
		json_object_object_add(o, "ok", json_object_new_boolean(true));
		json_object_object_add(o, "cluster", json_object_new_string(conf.cluster));
		json_object_object_add(o, "self_id", json_object_new_int64(conf.self_id));
		json_object_object_add(o, "failover_bound_ms", json_object_new_int64(bound));
		json_object_object_add(o, "silent_bound_ms", json_object_new_int64(silent));
		ctl_print_json(o);
		json_object_put(o);
		return CTL_OK;
	}
	(void)printf("OK: cluster %s, %zu node%s, %zu volume%s, profile %s.\n", conf.cluster, conf.n_nodes, conf.n_nodes == 1 ? "" : "s",
		     conf.n_volumes, conf.n_volumes == 1 ? "" : "s", timing_profile_name(conf.profile));
	print_rules(&conf.timing);
	(void)printf("After a power cut a VM starts on another node within %" PRIu32 ".%03" PRIu32 " s at most.\n", bound / 1000, bound % 1000);
	(void)printf("A VM that ends while the agent of its node is silent starts on another node within %" PRIu32 ".%03" PRIu32 " s.\n", silent / 1000, silent % 1000);
	if (!conf.silence_proves)
		(void)printf("Evidence=no: of a node with this configuration that is lost, VMs start elsewhere only once a fence device or an operator says that it is off.\n");
	if (conf.self_id == 0)
		(void)printf("This host, %s, is not in Nodes=: keeper and agent will not start here.\n", conf.self_name);
	return CTL_OK;
}

static const struct command commands[] = {
	{ "", "status", "", 0, 0, 0, ctl_status, "what runs where, problems first", "" },
	{ "", "arm", "", 0, 0, 0, ctl_arm, "start protecting: watchdogs run, lost nodes are fenced",
	  "Refused with the reason on a ring without encryption. A node whose watchdog does not allow it stays unarmed, and its journal says why.\n" },
	{ "", "disarm", "[--freeze|--ignore]", 0, 0, OPTION_PAUSE, ctl_disarm, "stop protecting, VMs run on",
	  "Until `ha-ctl arm` no node is fenced and no VM of a lost node is started elsewhere.\n"
	  "  --freeze   and no VM is started, stopped, restarted or moved, whatever was asked for; that is done after `ha-ctl arm`\n"
	  "  --ignore   the same, except that `ha-ctl vm relocate` is obeyed\n" },
	{ "", "events", "[--follow]", 0, 0, OPTION_FOLLOW, ctl_events, "what happened, oldest first",
	  "  --follow   go on and print each new event; end with Ctrl-C\n" },
	{ "node", "list", "", 0, 0, 0, ctl_node_list, "the nodes, their state and why", "" },
	{ "node", "maintenance", "on|off NODE [--return] [--wait]", 2, 2, OPTION_RETURN | OPTION_WAIT, ctl_node_maintenance,
	  "move the VMs off a node and keep it empty, or use it again",
	  "  --return   with off: the VMs that left it for its maintenance, and were not moved by an operator since, come back\n"
	  "  --wait     until the node is empty, or with --return until all are back; says what has left, and what no other node can take\n" },
	{ "node", "leave", "", 0, 0, 0, ctl_node_leave, "wait until this node's VMs have left it, if its host goes down; for ha-leave.service",
	  "What becomes of the VMs says ShutdownPolicy= in kvm-ha.conf(5). With a host that does not go down nothing happens.\n" },
	{ "node", "stop", "", 0, 0, 0, ctl_node_stop, "stop ha-agent and ha-keeper on this host, which systemctl refuses",
	  "Refused while VMs run here, or may be started here: `ha-ctl node maintenance on NODE --wait` first, or `ha-ctl disarm`.\n"
	  "Until `systemctl start ha-keeper ha-agent`, or the host's next boot. Needs no agent.\n" },
	{ "node", "fence", "NODE [--off]", 1, 1, OPTION_OFF, ctl_node_fence, "take a node's VMs away, dead or alive, and give it none",
	  "A node that is alive kills its VMs, proves them gone and stays up; of one that is not, the watchdog or a fence device is the proof.\n"
	  "Also the way around a brake. Until `ha-ctl node unfence` the node is in quarantine.\n"
	  "  --off      and have its fence devices switch it off\n" },
	{ "node", "unfence", "NODE", 1, 1, 0, ctl_node_unfence, "let a node have VMs again; switch it on if it is off" , "" },
	{ "node", "confirm-fenced", "NODE", 1, 1, 0, ctl_node_confirm_fenced, "say that a node is off, so that nobody waits for it",
	  "For a node that is dead and nothing else proves it. Tells what it means and asks for the node's name, on standard input.\n"
	  "Refused while the node's heartbeat moves.\n" },
	{ "node", "power", "NODE", 1, 1, 0, ctl_node_power, "ask a node's fence devices for their status; needs no agent", "" },
	{ "vm", "add", "FILE", 1, 1, 0, ctl_vm_add, "put a VM under protection",
	  "FILE is a definition as in kvm-ha.vm(5), or - for standard input. If it has no UUID= one is drawn.\n" },
	{ "vm", "update", "FILE", 1, 1, 0, ctl_vm_update, "change a VM's definition, running or not",
	  "FILE, or - for standard input, is its whole new definition; it is known by its Name=. [HA] and [Health] are obeyed at once, but for State=,\n"
	  "[Migration] by the next migration. What QEMU is started with, and GuestAgent=, cannot be changed: that takes vm stop, vm remove and vm add.\n" },
	{ "vm", "import", "--libvirt FILE.xml|--qemu-cmdline FILE [--name NAME] [--bridge BRIDGE] [--strict] [-o FILE]", 0, 0, OPTION_FILE | OPTION_IMPORT,
	  ctl_vm_import, "make a VM file of a libvirt domain or a QEMU command line; needs no agent",
	  "  --libvirt FILE.xml   a domain as `virsh dumpxml` prints it; needs virsh\n"
	  "  --qemu-cmdline FILE  QEMU's command line as in a script, or /proc/PID/cmdline; - for standard input\n"
	  "  --name NAME          another name for the VM\n"
	  "  --bridge BRIDGE      put taps whose bridge is not known on this one\n"
	  "  --strict             fail if another node could not run the VM, or nothing would protect its disks\n"
	  "  -o FILE              write there, never over a file; default standard output\n"
	  "What is changed or left out is listed at the end of the VM file, and why.\n" },
	{ "vm", "list", "", 0, 0, 0, ctl_vm_list, "the VMs, their state and where they run", "" },
	{ "vm", "show", "NAME [--why]", 1, 1, OPTION_WHY, ctl_vm_show, "one VM with its definition",
	  "  --why                where it would be started now, and what speaks for and against each node, as the leader sees it\n" },
	{ "vm", "start", "NAME", 1, 1, 0, ctl_vm_start, "want a VM started, wherever there is room", "" },
	{ "vm", "stop", "NAME", 1, 1, 0, ctl_vm_stop, "shut a VM down and keep it down", "" },
	{ "vm", "relocate", "NAME NODE [--wait]", 2, 2, OPTION_WAIT, ctl_vm_relocate, "shut a VM down where it runs and start it on another node",
	  "Refused if that node cannot take it. Should the node fail on the way, the VM runs on another one.\n"
	  "A VM that is stopped is started there when it is started next.\n"
	  "  --wait     until it runs there; fails if it does not come to that\n" },
	{ "vm", "migrate", "NAME NODE [--wait] | NAME --cancel", 1, 2, OPTION_WAIT | OPTION_CANCEL, ctl_vm_migrate, "move a VM to another node while it runs",
	  "Its disks must be shared and listed in Disk=. Refused, with the reason, if it is tied to its host. Whatever fails on the way, it runs on: until\n"
	  "its guest is whole on the other node and handed over, where it was.\n"
	  "  --wait     until it runs there, with a progress bar; fails if it does not come to that. With -o json one line each time something changes\n"
	  "  --cancel   call it off: the VM stays where it is\n" },
	{ "vm", "ignore", "NAME", 1, 1, 0, ctl_vm_ignore, "hands off a VM: it is neither started, stopped, restarted nor taken over",
	  "Where it runs it runs on. `ha-ctl vm start` or `ha-ctl vm stop` ends it.\n" },
	{ "vm", "freeze", "NAME", 1, 1, 0, ctl_vm_freeze, "hold a VM as it is: it is neither started, stopped, moved, restarted nor taken over",
	  "What is asked for meanwhile (start, stop, maintenance) waits for `ha-ctl vm unfreeze`. Where it runs it runs on; a node that loses its lease still ends it.\n" },
	{ "vm", "unfreeze", "NAME", 1, 1, 0, ctl_vm_unfreeze, "end that", "What was asked for meanwhile, or is due since, is done now.\n" },
	{ "", "adopt", "NAME PID SOCKET", 3, 3, 0, ctl_adopt, "protect a running QEMU that something else started on this node",
	  "NAME is a stopped VM whose file describes it: UUID, memory, CPUs and disks are compared. PID is its process, SOCKET the path of a QMP monitor of its own\n"
	  "(-qmp unix:SOCKET,server=on,wait=off). What is refused is left as it was. See ADOPTING A RUNNING QEMU in ha-ctl(8).\n" },
	{ "vm", "clear-error", "NAME", 1, 1, 0, ctl_vm_clear_error, "start a VM again that was given up (state error)",
	  "A VM is given up once it has failed on more nodes than RelocateLimit= of its file allows.\n" },
	{ "vm", "remove", "NAME", 1, 1, 0, ctl_vm_remove, "forget the definition of a stopped VM", "Its disks are left as they are.\n" },
	{ "volume", "init", "[URL...] [--force NAME|URL]... [--nodes-max N]", 0, CONF_MAX_VOLUMES, OPTION_FORCE | OPTION_NODES_MAX,
	  ctl_volume_init, "make a new cluster on the volumes of Volumes=",
	  "URLs may be given to be sure; then they must be those of Volumes=. A volume that is not blank is refused.\n"
	  "  --force NAME|URL  overwrite the volume with this URL, or those of the former cluster of this name; never one in use\n"
	  "  --nodes-max N     room for node ids up to N, 1 to 64; default 16, or the highest id in Nodes=\n" },
	{ "volume", "add", "URL [--force URL]", 1, 1, OPTION_FORCE, ctl_volume_add, "put a volume into the volume set; only while no node is armed",
	  "First put it into Volumes= on every node, as the last one. Interrupted, the same command again goes on; so with the two below.\n"
	  "  --force URL  overwrite what is on it though it is not of this cluster\n" },
	{ "volume", "remove", "URL [--lost]", 1, 1, OPTION_LOST, ctl_volume_remove, "take a volume out of the volume set; only while no node is armed",
	  "First take it out of Volumes= on every node.\n"
	  "  --lost       of two volumes: no node reaches it any more, and keeper and agent are stopped on all of them\n" },
	{ "volume", "replace", "URL [NEW] [--lost] [--force URL]", 1, 2, OPTION_LOST | OPTION_FORCE, ctl_volume_replace,
	  "put another volume, or the same one anew, in a volume's place; only while no node is armed",
	  "First put NEW in its place in Volumes= on every node. Without NEW: the volume was wiped, rolled back or is stale, and gets every node's state anew.\n"
	  "  --lost       of two volumes: no node reaches it any more, and keeper and agent are stopped on all of them\n"
	  "  --force URL  overwrite what is on the new one though it is not of this cluster\n" },
	{ "volume", "list", "", 0, 0, 0, ctl_volume_list, "the volumes of Volumes=; fails if one is bad", "" },
	{ "volume", "dump", "URL [--what PART]", 1, 1, OPTION_WHAT, ctl_volume_dump, "what is written on a volume",
	  "  --what PART  superblock, heartbeats, claims, catalog or all (default)\n" },
	{ "volume", "test", "URL [--seconds N] [--force-write URL]", 1, 1, OPTION_SECONDS | OPTION_FORCE_WRITE, ctl_volume_test,
	  "measure a volume before it is trusted",
	  "Fails if the volume is not fit for the configured profile; without a configuration, for profile standard.\n"
	  "Writes into a scratch area that nothing else uses, and leaves it as it was; on unknown data it only reads.\n"
	  "  --seconds N        how long to measure, 1 to 86400; default 60\n"
	  "  --force-write URL  write although there is unknown data on this very volume; what was there is put back\n" },
	{ "watchdog", "query", "[-o FILE]", 0, 0, OPTION_FILE, ctl_watchdog_query, "what this host's watchdog is, without arming it; what its test has shown",
	  "  -o FILE   where the test recorded; default /var/lib/kvm-ha/watchdog-test\n" },
	{ "watchdog", "test", "[-o FILE]", 0, 0, OPTION_FILE, ctl_watchdog_test, "let the watchdog reset this host, to measure how long that takes",
	  "Asks for the host's name first. Refused while the cluster is armed or VMs run here. After the boot `ha-ctl watchdog query` tells.\n"
	  "  -o FILE   record there, on a disk that survives the reset; default /var/lib/kvm-ha/watchdog-test\n" },
	{ "config", "show", "", 0, 0, 0, config_show, "every value in force and where it came from", "" },
	{ "config", "check", "", 0, 0, 0, config_check, "check the configuration and its timing rules", "" },
};

/* https://no-color.org: set and not empty means none. */
static bool wants_color(int fd)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fd) && !(no_color && *no_color) && !(term && streq(term, "dumb"));
}

int ctl_fail(const struct ctl *c, enum ctl_exit code, const char *fmt, ...)
{
	char text[CTL_ERROR_LEN];
	bool color = wants_color(STDERR_FILENO);
	json_object *o;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->remedy)
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "; %s", c->remedy);
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) /* U+0080 to U+009F */
			p[0] = p[1] = ' ';
		else if ((*p < ' ' && *p != '\n') || *p == 0x7f)
			*p = ' ';
	}
	(void)fflush(stdout);
	(void)fprintf(stderr, "%sha-ctl: %s%s\n", color ? "\033[31m" : "", text, color ? "\033[0m" : "");
	if (c->json) {
		o = json_object_new_object();
		json_object_object_add(o, "api_version", json_object_new_int(CTL_API_VERSION));
		json_object_object_add(o, "ok", json_object_new_boolean(false));
		json_object_object_add(o, "error", json_object_new_string(text));
		json_object_object_add(o, "temporary", json_object_new_boolean(code == CTL_AGAIN));
		ctl_print_json(o);
		json_object_put(o);
	}
	return code;
}

int ctl_conf(const struct ctl *c, struct conf *ret)
{
	char err[CTL_ERROR_LEN] = "";

	return conf_load(c->config_dir, NULL, ret, err, sizeof(err)) == 0 ? 0 : ctl_fail(c, CTL_CONFIG, "%s", err);
}

static void print_options(void)
{
	(void)fputs("\nOptions:\n"
		    "  --config DIR    configuration, default " CONF_DIR_DEFAULT "\n"
		    "  --socket PATH   the agent's socket, default " CTL_CLIENT_SOCKET "\n"
		    "  -o text|json    form of the output\n"
		    "  --version, --help\n", stdout);
}

static void print_usage(const char *group)
{
	char usage[128];

	(void)printf("usage: ha-ctl [OPTION]... %s%sCOMMAND [ARGUMENT]...\n\nCommands:\n", group, *group ? " " : "");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *cmd = &commands[i];
		int n;

		if (*group && !streq(group, cmd->group))
			continue;
		n = snprintf(usage, sizeof(usage), "%s%s%s%s%s", cmd->group, *cmd->group ? " " : "", cmd->verb, *cmd->args ? " " : "", cmd->args);
		(void)printf(n > 28 ? "  %s\n  %28s  %s\n" : "  %-28s%s  %s\n", usage, "", cmd->summary);
	}
	print_options();
	if (!*group)
		(void)fputs("\n`ha-ctl COMMAND --help` tells more. Exit codes: 0 done, 1 refused or failed, 64 usage, 69 no agent,\n"
			    "75 try again later, 78 configuration. See ha-ctl(8).\n", stdout);
}

static void print_command(const struct command *cmd)
{
	(void)printf("usage: ha-ctl [OPTION]... %s%s%s%s%s\n\n%s.\n%s", cmd->group, *cmd->group ? " " : "", cmd->verb, *cmd->args ? " " : "",
		     cmd->args, cmd->summary, cmd->details);
	print_options();
}

static bool is_group(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (*word && streq(word, commands[i].group))
			return true;
	return false;
}

/* The command that words begin with; *used counts its words. */
static const struct command *find_command(char **words, int n, int *used)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *cmd = &commands[i];

		*used = *cmd->group ? 2 : 1;
		if (n < *used || (*cmd->group && !streq(words[0], cmd->group)) || !streq(words[*used - 1], cmd->verb))
			continue;
		return cmd;
	}
	return NULL;
}

static int unknown_command(const struct ctl *c, char **words, int n)
{
	bool group = n > 0 && is_group(words[0]);
	const char *word = group && n > 1 ? words[1] : n > 0 ? words[0] : "", *nearest = "status";
	size_t best = SIZE_MAX;

	if (n == 0)
		return ctl_fail(c, CTL_USAGE, "no command given; `ha-ctl --help` lists them, `ha-ctl status` is a good start");
	if (group && n == 1)
		return ctl_fail(c, CTL_USAGE, "%s what? `ha-ctl %s --help` lists its commands", word, word);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *cmd = &commands[i];
		const char *name = group || !*cmd->group ? cmd->verb : cmd->group;
		size_t d = value_distance(word, name);

		if ((group && !streq(cmd->group, words[0])) || d >= best)
			continue;
		best = d;
		nearest = name;
	}
	return ctl_fail(c, CTL_USAGE, "unknown command \"%s%s%.64s\"; did you mean %s? `ha-ctl --help` lists all", group ? words[0] : "",
			group ? " " : "", word, nearest);
}

static int run_command(struct ctl *c, unsigned given, char **words, int n)
{
	static const char *const names[] = { "--follow", "--force", "--nodes-max", "--what", "-o with another word than text or json",
					     "--libvirt, --qemu-cmdline, --name, --bridge or --strict", "--seconds", "--force-write", "--wait", "--return", "--freeze or --ignore", "--off", "--why", "--lost",
					     "--cancel" };
	int used = 0, r;
	const struct command *cmd = find_command(words, n, &used);

	if (!cmd)
		return unknown_command(c, words, n);
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (given & ~cmd->options & 1U << i)
			return ctl_fail(c, CTL_USAGE, "%s is no option of `%s%s%s`; see its --help", names[i], cmd->group, *cmd->group ? " " : "",
					cmd->verb);
	c->args = words + used;
	c->n_args = n - used;
	if (c->n_args < cmd->min_args || c->n_args > cmd->max_args)
		return ctl_fail(c, CTL_USAGE, "%s argument; usage: ha-ctl %s%s%s%s%s", c->n_args < cmd->min_args ? "missing" : "superfluous",
				cmd->group, *cmd->group ? " " : "", cmd->verb, *cmd->args ? " " : "", cmd->args);
	r = cmd->run(c);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		(void)fprintf(stderr, "ha-ctl: cannot write to standard output\n");
		return r == CTL_OK ? CTL_FAILED : r;
	}
	return r;
}

static int print_help(const struct ctl *c, char **words, int n)
{
	int used = 0;
	const struct command *cmd = find_command(words, n, &used);

	if (!cmd && n > 0 && (n > 1 || !is_group(words[0])))
		return unknown_command(c, words, n);
	if (cmd)
		print_command(cmd);
	else
		print_usage(n > 0 ? words[0] : "");
	return fflush(stdout) == EOF ? CTL_FAILED : CTL_OK;
}

/* 0, or an exit code after saying why. */
static int take_option(struct ctl *c, int option, unsigned *given, bool *help)
{
	char err[160] = "";

	switch (option) {
	case 'c':
		c->config_dir = optarg;
		return 0;
	case 's':
		c->socket = optarg;
		return 0;
	case 'o':
		if (!streq(optarg, "json") && !streq(optarg, "text")) {
			*given |= OPTION_FILE;
			c->file = optarg;
			return 0;
		}
		c->json = streq(optarg, "json");
		return 0;
	case 'h':
		*help = true;
		return 0;
	case 'f':
		*given |= OPTION_FOLLOW;
		c->follow = true;
		return 0;
	case 'F':
		if (c->n_force == CTL_MAX_FORCE)
			return ctl_fail(c, CTL_USAGE, "--force more than %d times", CTL_MAX_FORCE);
		*given |= OPTION_FORCE;
		c->force[c->n_force++] = optarg;
		return 0;
	case 'n':
		*given |= OPTION_NODES_MAX;
		if (value_u32(optarg, 1, FORMAT_MAX_NODES, &c->nodes_max, err, sizeof(err)) < 0)
			return ctl_fail(c, CTL_USAGE, "--nodes-max %.64s: %s", optarg, err);
		return 0;
	case 'w':
		*given |= OPTION_WHAT;
		c->what = optarg;
		return 0;
	case 'L':
	case 'Q':
	case 'N':
	case 'B':
	case 'S':
		*given |= OPTION_IMPORT;
		if (option == 'S')
			c->strict = true;
		else
			*(option == 'L' ? &c->libvirt : option == 'Q' ? &c->qemu_cmdline : option == 'N' ? &c->name : &c->bridge) = optarg;
		return 0;
	case 't':
		*given |= OPTION_SECONDS;
		if (value_u32(optarg, 1, 86400, &c->seconds, err, sizeof(err)) < 0)
			return ctl_fail(c, CTL_USAGE, "--seconds %.64s: %s", optarg, err);
		return 0;
	case 'a':
		*given |= OPTION_WAIT;
		c->wait = true;
		return 0;
	case 'k':
		*given |= OPTION_CANCEL;
		c->cancel = true;
		return 0;
	case 'r':
		*given |= OPTION_RETURN;
		c->back = true;
		return 0;
	case 'O':
		*given |= OPTION_OFF;
		c->off = true;
		return 0;
	case 'y':
		*given |= OPTION_WHY;
		c->why = true;
		return 0;
	case 'l':
		*given |= OPTION_LOST;
		c->lost = true;
		return 0;
	case 'z':
	case 'i':
		if (*given & OPTION_PAUSE)
			return ctl_fail(c, CTL_USAGE, "one of --freeze and --ignore, and once");
		*given |= OPTION_PAUSE;
		c->pause = option == 'z' ? "freeze" : "ignore";
		return 0;
	case 'W':
		*given |= OPTION_FORCE_WRITE;
		c->force_write = optarg;
		return 0;
	default: /* getopt has said what is wrong */
		(void)fputs("`ha-ctl --help` lists the options\n", stderr);
		return CTL_USAGE;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },    { "socket", required_argument, NULL, 's' }, { "output", required_argument, NULL, 'o' },
		{ "version", no_argument, NULL, 'V' },         { "help", no_argument, NULL, 'h' },         { "follow", no_argument, NULL, 'f' },
		{ "force", required_argument, NULL, 'F' },     { "what", required_argument, NULL, 'w' },
		{ "nodes-max", required_argument, NULL, 'n' }, { "libvirt", required_argument, NULL, 'L' },
		{ "qemu-cmdline", required_argument, NULL, 'Q' }, { "name", required_argument, NULL, 'N' },
		{ "bridge", required_argument, NULL, 'B' },    { "strict", no_argument, NULL, 'S' },
		{ "seconds", required_argument, NULL, 't' },   { "force-write", required_argument, NULL, 'W' },
		{ "wait", no_argument, NULL, 'a' },            { "return", no_argument, NULL, 'r' },
		{ "off", no_argument, NULL, 'O' },
		{ "cancel", no_argument, NULL, 'k' },
		{ "freeze", no_argument, NULL, 'z' },          { "ignore", no_argument, NULL, 'i' },
		{ "why", no_argument, NULL, 'y' },             { "lost", no_argument, NULL, 'l' },            { 0 },
	};
	struct ctl c = { .config_dir = CONF_DIR_DEFAULT, .socket = CTL_CLIENT_SOCKET };
	unsigned given = 0;
	bool help = false;
	int option, r;

	log_init("ha-ctl", LOG_LEVEL_WARNING);
	c.color = wants_color(STDOUT_FILENO);
	while ((option = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
		if (option == 'V') {
			(void)puts("ha-ctl " PACKAGE_VERSION);
			return CTL_OK;
		}
		r = take_option(&c, option, &given, &help);
		if (r != 0)
			return r;
	}
	return help ? print_help(&c, argv + optind, argc - optind) : run_command(&c, given, argv + optind, argc - optind);
}
