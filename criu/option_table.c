// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The table of option_table.h. Rows for options that only stock's other actions use are short: a
 * name and whether a value follows, so that a command line is taken apart as stock would.
 */
#include "option_table.h"

#include <string.h>

#include "compiler.h"

#define UNUSED(name, value) \
	{ \
		name, 0, value, OPTION_IGNORED, NULL, \
		{ \
			NULL \
		} \
	}

/* What means the same to both actions. */
#define BOTH(text) \
	{ \
		text, text \
	}

static const struct option_row rows[] = {
	{"images-dir", 'D', VALUE_NEEDED, OPTION_IMAGES_DIR, "DIR",
	 BOTH("directory of the checkpoint's images (default: .)")},
	{"work-dir",
	 'W',
	 VALUE_NEEDED,
	 OPTION_WORK_DIR,
	 "DIR",
	 {"directory of socket, log, pidfile and summary\n(default: the images directory)",
	  "directory of log, pidfile and summary\n(default: the images directory)"}},
	{"log-file", 'o', VALUE_NEEDED, OPTION_LOG_FILE, "FILE",
	 BOTH("log there, relative to the work directory")},
	{"verbosity", 'v', VALUE_MAYBE, OPTION_VERBOSITY, "NUM",
	 BOTH("1 errors, 2 warnings (default), 3 information, 4 debug;\n"
	      "-v and -vv count up from the default")},
	{"log-pid", 0, VALUE_SWITCH, OPTION_LOG_PID, NULL,
	 BOTH("put the process id into each line of the log")},
	{"daemon", 'd', VALUE_SWITCH, OPTION_DAEMON, NULL,
	 BOTH("go to the background once the socket listens")},
	{"pidfile", 0, VALUE_NEEDED, OPTION_PIDFILE, "FILE",
	 BOTH("with --daemon: write the daemon's pid there")},
	{"status-fd", 0, VALUE_NEEDED, OPTION_STATUS_FD, "FD",
	 BOTH("write one NUL byte to FD and close it once the socket\nlistens")},
	{"timeout",
	 0,
	 VALUE_NEEDED,
	 OPTION_TIMEOUT,
	 "SECONDS",
	 {"give up when no restore has come by then (default: 0,\nnever)", NULL}},
	{"display-stats", 0, VALUE_SWITCH, OPTION_DISPLAY_STATS, NULL,
	 BOTH("print the summary on standard output at the end")},
	{"close", 0, VALUE_NEEDED, OPTION_CLOSE, "FD", BOTH("close FD first")},
	{"threads",
	 0,
	 VALUE_NEEDED,
	 OPTION_THREADS,
	 "NUM",
	 {"threads that place pages (default: 2)",
	  "with --lazy-pages: threads that send (default: 2)"}},
	{"json", 0, VALUE_NEEDED, OPTION_JSON, "FILE",
	 BOTH("write the summary to FILE as JSON, relative to the work\ndirectory")},
	{"thp",
	 0,
	 VALUE_NEEDED,
	 OPTION_THP,
	 "auto|never",
	 {"make huge pages again of what could have them before\n(default: auto)", NULL}},
	{"progress",
	 0,
	 VALUE_MAYBE,
	 OPTION_PROGRESS,
	 "WHEN",
	 {"progress line: auto (default: on a terminal), always or\nnever", NULL}},
	{"listen-fd",
	 0,
	 VALUE_NEEDED,
	 OPTION_LISTEN_FD,
	 "FD",
	 {"use FD, a socket that is bound and listening", NULL}},
	{"restore-pidfd",
	 0,
	 VALUE_NEEDED,
	 OPTION_RESTORE_PIDFD,
	 "FD",
	 {"leave quietly when the process of this pidfd ends and has\nnot connected", NULL}},
	{"lazy-pages",
	 0,
	 VALUE_SWITCH,
	 OPTION_LAZY_PAGES,
	 NULL,
	 {NULL, "serve the images to lazy restores (default: receive the\nimages of a dump)"}},
	{"attach",
	 0,
	 VALUE_NEEDED,
	 OPTION_ATTACH,
	 "ADDR:PORT",
	 {NULL, "serve the memory of the tasks that a criu dump\n--lazy-pages at ADDR:PORT has "
		"frozen on this machine"}},
	{"once",
	 0,
	 VALUE_SWITCH,
	 OPTION_ONCE,
	 NULL,
	 {NULL, "with --lazy-pages: end when a client has said that it\nhas everything (default "
		"when called as criu)"}},
	{"auto-dedup",
	 0,
	 VALUE_SWITCH,
	 OPTION_AUTO_DEDUP,
	 NULL,
	 {NULL, "receiving: free in the parent's images what comes anew"}},
	{"page-server",
	 0,
	 VALUE_SWITCH,
	 OPTION_PAGE_SERVER,
	 NULL,
	 {"get the pages from a page server", NULL}},
	{"address",
	 0,
	 VALUE_NEEDED,
	 OPTION_ADDRESS,
	 "ADDR",
	 {"address of the page server, or path of its unix socket",
	  "listen there, or on a unix socket of this path (default:\non every address)"}},
	{"port",
	 0,
	 VALUE_NEEDED,
	 OPTION_PORT,
	 "PORT",
	 {"port of the page server", "listen on this port (default: 0, one that is free)"}},
	{"ps-socket",
	 0,
	 VALUE_NEEDED,
	 OPTION_PS_SOCKET,
	 "FD",
	 {"use FD as the connection to the page server",
	  "do not listen: FD is the connection to the client"}},
	{"ps-layout",
	 0,
	 VALUE_NEEDED,
	 OPTION_PS_LAYOUT,
	 "24|32",
	 {"bytes of a header on that connection: 24 for a server up\nto CRIU 4.1, 32 from 4.2 on "
	  "(default: as the images say)",
	  "bytes of a header on the wire: 24 for clients up to CRIU\n4.1, 32 from 4.2 on (default: "
	  "as the client begins)"}},
	{"tls", 0, VALUE_SWITCH, OPTION_TLS, NULL, BOTH("secure that connection with TLS")},
	{"tls-cacert", 0, VALUE_NEEDED, OPTION_TLS_CACERT, "FILE",
	 BOTH("certificate authority to trust")},
	{"tls-cacrl", 0, VALUE_NEEDED, OPTION_TLS_CACRL, "FILE", BOTH("its revoked certificates")},
	{"tls-cert", 0, VALUE_NEEDED, OPTION_TLS_CERT, "FILE", BOTH("own certificate")},
	{"tls-key", 0, VALUE_NEEDED, OPTION_TLS_KEY, "FILE", BOTH("own private key")},
	{"tls-no-cn-verify",
	 0,
	 VALUE_NONE,
	 OPTION_TLS_NO_CN_VERIFY,
	 NULL,
	 {"do not compare the server's name with its certificate", NULL}},
	{"config", 0, VALUE_NEEDED, OPTION_CONFIG, "FILE",
	 BOTH("read options from FILE instead of the default files")},
	{"no-default-config", 0, VALUE_NONE, OPTION_NO_DEFAULT_CONFIG, NULL,
	 BOTH("do not read the default files")},
	{"help", 'h', VALUE_NONE, OPTION_HELP, NULL, BOTH("show this")},
	{"version", 'V', VALUE_NONE, OPTION_VERSION, NULL, BOTH("show the version")},

	{"tree", 't', VALUE_NEEDED, OPTION_IGNORED, NULL, {NULL}},
	{"leave-stopped", 's', VALUE_NONE, OPTION_IGNORED, NULL, {NULL}},
	{"leave-running", 'R', VALUE_NONE, OPTION_IGNORED, NULL, {NULL}},
	{"restore-sibling", 'S', VALUE_SWITCH, OPTION_IGNORED, NULL, {NULL}},
	{"join-ns", 'J', VALUE_NEEDED, OPTION_IGNORED, NULL, {NULL}},
	{"root", 'r', VALUE_NEEDED, OPTION_IGNORED, NULL, {NULL}},
	{"ext-unix-sk", 'x', VALUE_MAYBE, OPTION_IGNORED, NULL, {NULL}},
	{"shell-job", 'j', VALUE_SWITCH, OPTION_IGNORED, NULL, {NULL}},
	{"file-locks", 'l', VALUE_SWITCH, OPTION_IGNORED, NULL, {NULL}},
	{"libdir", 'L', VALUE_NEEDED, OPTION_IGNORED, NULL, {NULL}},
	{"ext-mount-map", 'M', VALUE_NEEDED, OPTION_IGNORED, NULL, {NULL}},
	UNUSED("restore-detached", VALUE_SWITCH),
	UNUSED("tcp-established", VALUE_SWITCH),
	UNUSED("tcp-close", VALUE_SWITCH),
	UNUSED("skip-in-flight", VALUE_SWITCH),
	UNUSED("evasive-devices", VALUE_SWITCH),
	UNUSED("link-remap", VALUE_SWITCH),
	UNUSED("track-mem", VALUE_SWITCH),
	UNUSED("force-irmap", VALUE_SWITCH),
	UNUSED("extra", VALUE_SWITCH),
	UNUSED("experimental", VALUE_SWITCH),
	UNUSED("deprecated", VALUE_SWITCH),
	UNUSED("weak-sysctls", VALUE_SWITCH),
	UNUSED("remote", VALUE_SWITCH),
	UNUSED("relative-timestamps", VALUE_SWITCH),
	UNUSED("stream", VALUE_SWITCH),
	UNUSED("mntns-compat-mode", VALUE_SWITCH),
	UNUSED("unprivileged", VALUE_SWITCH),
	UNUSED("ghost-fiemap", VALUE_SWITCH),
	UNUSED("allow-uprobes", VALUE_SWITCH),
	UNUSED("skip-file-rwx-check", VALUE_SWITCH),
	UNUSED("ms", VALUE_NONE),
	UNUSED("all", VALUE_NONE),
	UNUSED("exec-cmd", VALUE_NONE),
	UNUSED("enable-external-sharing", VALUE_NONE),
	UNUSED("enable-external-masters", VALUE_NONE),
	UNUSED("cpu-cap", VALUE_MAYBE),
	UNUSED("manage-cgroups", VALUE_MAYBE),
	UNUSED("veth-pair", VALUE_NEEDED),
	UNUSED("action-script", VALUE_NEEDED),
	UNUSED("prev-images-dir", VALUE_NEEDED),
	UNUSED("pre-dump-mode", VALUE_NEEDED),
	UNUSED("cgroup-root", VALUE_NEEDED),
	UNUSED("cgroup-props", VALUE_NEEDED),
	UNUSED("cgroup-props-file", VALUE_NEEDED),
	UNUSED("cgroup-dump-controller", VALUE_NEEDED),
	UNUSED("cgroup-yard", VALUE_NEEDED),
	UNUSED("freeze-cgroup", VALUE_NEEDED),
	UNUSED("inherit-fd", VALUE_NEEDED),
	UNUSED("feature", VALUE_NEEDED),
	UNUSED("skip-mnt", VALUE_NEEDED),
	UNUSED("enable-fs", VALUE_NEEDED),
	UNUSED("ghost-limit", VALUE_NEEDED),
	UNUSED("irmap-scan-path", VALUE_NEEDED),
	UNUSED("lsm-profile", VALUE_NEEDED),
	UNUSED("lsm-mount-context", VALUE_NEEDED),
	UNUSED("external", VALUE_NEEDED),
	UNUSED("empty-ns", VALUE_NEEDED),
	UNUSED("network-lock", VALUE_NEEDED),
	UNUSED("file-validation", VALUE_NEEDED),
};

const struct option_row *option_table(size_t *count)
{
	*count = ARRAY_SIZE(rows);
	return rows;
}

static bool begins_with(const char *name, const char *start, size_t len, bool *whole)
{
	if (strncmp(name, start, len))
		return false;
	*whole = !name[len];
	return true;
}

const struct option_row *option_by_name(const char *name, size_t len, bool *off, bool *ambiguous)
{
	const struct option_row *found = NULL;
	unsigned candidates = 0;

	*off = *ambiguous = false;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		bool can_be_off = rows[i].value == VALUE_SWITCH;
		bool whole = false;

		if (begins_with(rows[i].name, name, len, &whole)) {
			*off = false;
		} else if (can_be_off && len > 3 && !strncmp(name, "no-", 3) &&
			   begins_with(rows[i].name, name + 3, len - 3, &whole)) {
			*off = true;
		} else {
			continue;
		}
		found = &rows[i];
		if (whole)
			return found;
		candidates++;
	}
	*ambiguous = candidates > 1;
	return candidates == 1 ? found : NULL;
}

const struct option_row *option_by_letter(char letter)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (letter && rows[i].letter == letter)
			return &rows[i];
	return NULL;
}
