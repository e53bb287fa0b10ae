/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every option there is, stock's and ours: its names, whether it takes a value, its help. Constant.
 */
#ifndef CRIU_OPTION_TABLE_H
#define CRIU_OPTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>

enum option_value {
	VALUE_NONE,
	VALUE_SWITCH, /* none, and --no-NAME switches it off again */
	VALUE_NEEDED, /* the rest of the word, or the next word */
	VALUE_MAYBE,  /* only in the same word: --name=value, -xVALUE */
};

/* The actions that have options of this table. */
enum option_action {
	ACTION_LAZY_PAGES,
	ACTION_PAGE_SERVER,
	ACTIONS,
};

enum option_what {
	OPTION_IGNORED, /* means something to other actions of stock only */
	OPTION_IMAGES_DIR,
	OPTION_WORK_DIR,
	OPTION_LOG_FILE,
	OPTION_VERBOSITY,
	OPTION_LOG_PID,
	OPTION_DAEMON,
	OPTION_PIDFILE,
	OPTION_STATUS_FD,
	OPTION_DISPLAY_STATS,
	OPTION_TIMEOUT,
	OPTION_CLOSE,
	OPTION_CONFIG,
	OPTION_NO_DEFAULT_CONFIG,
	OPTION_PAGE_SERVER,
	OPTION_ADDRESS,
	OPTION_PORT,
	OPTION_PS_SOCKET,
	OPTION_PS_LAYOUT,
	OPTION_LAZY_PAGES,
	OPTION_AUTO_DEDUP,
	OPTION_ATTACH,
	OPTION_ONCE,
	OPTION_TLS,
	OPTION_TLS_NO_CN_VERIFY,
	OPTION_TLS_CACERT,
	OPTION_TLS_CACRL,
	OPTION_TLS_CERT,
	OPTION_TLS_KEY,
	OPTION_THREADS,
	OPTION_JSON,
	OPTION_THP,
	OPTION_PROGRESS,
	OPTION_LISTEN_FD,
	OPTION_RESTORE_PIDFD,
	OPTION_HELP,
	OPTION_VERSION,
};

struct option_row {
	const char *name;
	char letter; /* 0: only the long form */
	enum option_value value;
	enum option_what what;
	const char *value_name; /* for --help */
	/* An action where it is NULL neither shows the option nor does anything for it. '\n' starts
	 * a new line. */
	const char *help[ACTIONS];
};

/* All rows, in the order of --help; the ones without effect last. */
const struct option_row *option_table(size_t *count);

/*
 * The row for a long name of @len bytes; an unambiguous beginning will do. *@off: it was --no-NAME.
 * NULL: unknown, or *@ambiguous.
 */
const struct option_row *option_by_name(const char *name, size_t len, bool *off, bool *ambiguous);

/* The row for -@letter, or NULL. */
const struct option_row *option_by_letter(char letter);

#endif
