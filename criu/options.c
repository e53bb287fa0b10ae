// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Takes command lines apart as getopt_long() does for stock CRIU (options and other words in any
 * order, "--" ends the options, clustered letters, unambiguous beginnings of long names), but from
 * one table, without global state, and with messages that can carry where an option came from.
 */
#include "options.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiler.h"
#include "config_file.h"
#include "daemon.h"
#include "log.h"
#include "option_table.h"

struct owned {
	struct owned *next;
	char text[];
};

/* Where a walk over a command line is. */
struct walk {
	int argc, next;
	char **argv;
	const char *cluster; /* what is left of a word of letters, or NULL */
	bool only_words;     /* "--" has been seen */
};

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_OPTION, TOKEN_BAD };

struct token {
	enum token_kind kind;
	int index;		      /* in argv, of the word it starts in */
	const struct option_row *row; /* TOKEN_OPTION */
	bool off;		      /* --no-NAME */
	const char *value;	      /* or NULL */
	struct error why;	      /* TOKEN_BAD */
};

static struct token bad(struct token t, const char *fmt, const char *name)
{
	t.kind = TOKEN_BAD;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	error_set(&t.why, -EINVAL, fmt, name);
#pragma GCC diagnostic pop
	return t;
}

static struct token next_letter(struct walk *w, struct token t)
{
	const char letter[] = {*w->cluster++, 0};

	t.row = option_by_letter(letter[0]);
	if (!*w->cluster)
		w->cluster = NULL;
	if (!t.row)
		return bad(t, "unknown option -%s", letter);
	t.kind = TOKEN_OPTION;
	if (t.row->value != VALUE_NEEDED && t.row->value != VALUE_MAYBE)
		return t;
	t.value = w->cluster;
	w->cluster = NULL;
	if (t.row->value == VALUE_NEEDED && !t.value) {
		if (w->next == w->argc)
			return bad(t, "option -%s needs a value", letter);
		t.value = w->argv[w->next++];
	}
	return t;
}

static struct token next_long(struct walk *w, struct token t, const char *name)
{
	const char *equals = strchr(name, '=');
	bool ambiguous;

	t.row = option_by_name(name, equals ? (size_t)(equals - name) : strlen(name), &t.off,
			       &ambiguous);
	if (!t.row)
		return bad(t, ambiguous ? "option --%s is ambiguous" : "unknown option --%s", name);
	t.kind = TOKEN_OPTION;
	t.value = equals ? equals + 1 : NULL;
	if (t.value && (t.row->value == VALUE_NONE || t.row->value == VALUE_SWITCH))
		return bad(t, "option --%s takes no value", t.row->name);
	if (t.row->value == VALUE_NEEDED && !t.value) {
		if (w->next == w->argc)
			return bad(t, "option --%s needs a value", t.row->name);
		t.value = w->argv[w->next++];
	}
	return t;
}

static struct token walk_next(struct walk *w)
{
	struct token t = {.kind = TOKEN_END, .index = w->next - 1};
	const char *word;

	if (w->cluster)
		return next_letter(w, t);
	if (w->next == w->argc)
		return t;
	t.index = w->next;
	word = w->argv[w->next++];
	if (!w->only_words && !strcmp(word, "--")) {
		w->only_words = true;
		return walk_next(w);
	}
	if (w->only_words || word[0] != '-' || !word[1]) {
		t.kind = TOKEN_WORD;
		return t;
	}
	if (word[1] == '-')
		return next_long(w, t, word + 2);
	w->cluster = word + 1;
	return next_letter(w, t);
}

static struct walk walk_start(int argc, char **argv)
{
	return (struct walk){.argc = argc, .argv = argv, .next = argc ? 1 : 0};
}

static int parse_number(const char *name, const char *text, long min, long max, long *out,
			struct error *e)
{
	char *end;

	errno = 0;
	*out = strtol(text, &end, 10);
	if (errno || end == text || *end || *out < min || *out > max)
		return error_set(e, -EINVAL, "--%s %s: not a number from %ld to %ld", name, text,
				 min, max);
	return 0;
}

static int parse_choice(const char *name, const char *text, const char *const *choices, size_t n,
			size_t *out, struct error *e)
{
	for (*out = 0; *out < n; (*out)++)
		if (!strcmp(text, choices[*out]))
			return 0;
	return error_set(e, -EINVAL, "--%s %s: not one of the values it can have", name, text);
}

/* Stock's counting: -v adds one, -vvv three, -v3 and --verbosity=3 set. */
static int set_verbosity(struct options *o, const char *value, struct error *e)
{
	long level;
	int ret;

	if (!value || value[0] == 'v') {
		size_t more = value ? strlen(value) : 0;

		if (value && strspn(value, "v") != more)
			return error_set(e, -EINVAL, "-v%s: not a verbosity", value);
		o->log_level += 1 + (int)MIN(more, (size_t)16);
		return 0;
	}
	ret = parse_number("verbosity", value, 0, 64, &level, e);
	if (!ret)
		o->log_level = (int)level;
	return ret;
}

static enum option_action action_of(const struct options *o)
{
	bool server = o->action && !strcmp(o->action, "page-server");

	return server ? ACTION_PAGE_SERVER : ACTION_LAZY_PAGES;
}

static void note_ignored(struct options *o, const struct option_row *row)
{
	for (unsigned i = 0; i < o->nr_ignored; i++)
		if (o->ignored[i] == row->name)
			return;
	if (o->nr_ignored < OPTIONS_MAX_IGNORED)
		o->ignored[o->nr_ignored++] = row->name;
}

/* The switch over what takes a number. */
static int set_number(struct options *o, const struct option_row *row, const char *value,
		      struct error *e)
{
	static const struct {
		enum option_what what;
		long min, max;
	} limits[] = {
		{OPTION_STATUS_FD, 0, INT_MAX}, {OPTION_TIMEOUT, 0, INT_MAX},
		{OPTION_CLOSE, 0, INT_MAX},	{OPTION_PORT, 0, UINT16_MAX},
		{OPTION_PS_SOCKET, 0, INT_MAX}, {OPTION_THREADS, 1, THREADS_MAX},
		{OPTION_LISTEN_FD, 0, INT_MAX}, {OPTION_RESTORE_PIDFD, 0, INT_MAX},
	};
	long number = 0;
	size_t i = 0;
	int ret;

	while (limits[i].what != row->what)
		i++;
	ret = parse_number(row->name, value, limits[i].min, limits[i].max, &number, e);
	if (ret)
		return ret;
	switch (row->what) {
	case OPTION_STATUS_FD:
		o->status_fd = (int)number;
		break;
	case OPTION_TIMEOUT:
		o->timeout_seconds = (unsigned)number;
		break;
	case OPTION_CLOSE:
		close_for_good((int)number);
		break;
	case OPTION_PORT:
		if (!number && action_of(o) == ACTION_LAZY_PAGES)
			return error_set(e, -EINVAL, "--port 0: nobody can listen there");
		o->port = (uint16_t)number;
		break;
	case OPTION_PS_SOCKET:
		o->ps_socket = (int)number;
		break;
	case OPTION_THREADS:
		o->threads = (unsigned)number;
		break;
	case OPTION_LISTEN_FD:
		o->listen_fd = (int)number;
		break;
	default:
		o->restore_pidfd = (int)number;
		break;
	}
	return 0;
}

/* Those of the page server; @handled says whether it is one. */
static int set_server_option(struct options *o, const struct option_row *row, bool off,
			     const char *value, bool *handled, struct error *e)
{
	static const char *const layouts[] = {"24", "32"};
	size_t choice = 0;
	int ret = 0;

	*handled = true;
	switch (row->what) {
	case OPTION_LAZY_PAGES:
		o->lazy_pages = !off;
		break;
	case OPTION_AUTO_DEDUP:
		o->auto_dedup = !off;
		break;
	case OPTION_ATTACH:
		o->attach = value;
		break;
	case OPTION_ONCE:
		o->once = !off;
		break;
	case OPTION_PS_LAYOUT:
		ret = parse_choice(row->name, value, layouts, ARRAY_SIZE(layouts), &choice, e);
		o->ps_layout = ret ? o->ps_layout : choice ? 32 : 24;
		break;
	default:
		*handled = false;
	}
	return ret;
}

static int set_option(struct options *o, const struct option_row *row, bool off, const char *value,
		      enum option_source source, struct error *e)
{
	static const char *const thp[] = {"auto", "never"};
	static const char *const progress[] = {"auto", "always", "never"};
	size_t choice;
	bool handled;
	int ret;

	if (!row->help[action_of(o)]) {
		note_ignored(o, row);
		return 0;
	}
	ret = set_server_option(o, row, off, value, &handled, e);
	if (handled)
		return ret;
	switch (row->what) {
	case OPTION_IMAGES_DIR:
		o->images_dir = value;
		break;
	case OPTION_WORK_DIR:
		o->work_dir = value;
		break;
	case OPTION_LOG_FILE:
		o->log_file = value;
		break;
	case OPTION_VERBOSITY:
		ret = set_verbosity(o, value, e);
		break;
	case OPTION_LOG_PID:
		o->log_pid = !off;
		break;
	case OPTION_DAEMON:
		o->daemon = !off;
		break;
	case OPTION_PIDFILE:
		o->pidfile = value;
		break;
	case OPTION_DISPLAY_STATS:
		o->display_stats = !off;
		break;
	case OPTION_TIMEOUT:
		/* In a file for all actions it is the time to freeze the tasks of a dump. */
		if (source == FROM_DEFAULT_CONFIG) {
			note_ignored(o, row);
			break;
		}
		ret = set_number(o, row, value, e);
		break;
	case OPTION_PAGE_SERVER:
		o->page_server = !off;
		break;
	case OPTION_ADDRESS:
		o->address = value;
		break;
	case OPTION_TLS:
		o->tls = !off;
		break;
	case OPTION_TLS_NO_CN_VERIFY:
		o->tls_no_cn_verify = true;
		break;
	case OPTION_TLS_CACERT:
		o->tls_cacert = value;
		break;
	case OPTION_TLS_CACRL:
		o->tls_cacrl = value;
		break;
	case OPTION_TLS_CERT:
		o->tls_cert = value;
		break;
	case OPTION_TLS_KEY:
		o->tls_key = value;
		break;
	case OPTION_JSON:
		o->json_file = value;
		break;
	case OPTION_THP:
		ret = parse_choice(row->name, value, thp, ARRAY_SIZE(thp), &choice, e);
		o->thp = ret ? o->thp : (enum thp)choice;
		break;
	case OPTION_PROGRESS:
		ret = parse_choice(row->name, value ? value : "always", progress,
				   ARRAY_SIZE(progress), &choice, e);
		o->progress_when = ret ? o->progress_when : (enum progress)choice;
		break;
	case OPTION_CONFIG:
	case OPTION_NO_DEFAULT_CONFIG:
	case OPTION_HELP:
	case OPTION_VERSION:
		break; /* of the command line only, and read from it beforehand */
	default:
		ret = set_number(o, row, value, e);
	}
	return ret;
}

static char *keep_string(struct options *o, const char *text)
{
	size_t size = strlen(text) + 1;
	struct owned *s = malloc(sizeof(*s) + size);

	if (!s)
		return NULL;
	memcpy(s->text, text, size);
	s->next = o->owned;
	o->owned = s;
	return s->text;
}

int options_set_by_name(struct options *o, const char *name, const char *value,
			enum option_source source, struct error *e)
{
	bool off, ambiguous;
	const struct option_row *row = option_by_name(name, strlen(name), &off, &ambiguous);

	if (!row)
		return error_set(e, -EINVAL, "%s option %s%s", ambiguous ? "ambiguous" : "unknown",
				 name, *name == '-' ? ": write it without dashes" : "");
	if (row->value == VALUE_NEEDED && !value)
		return error_set(e, -EINVAL, "option %s needs a value", name);
	if (row->value == VALUE_NONE || row->value == VALUE_SWITCH)
		value = NULL;
	if (value) {
		value = keep_string(o, value);
		if (!value)
			return error_errno(e, -ENOMEM, "option %s", name);
	}
	return set_option(o, row, off, value, source, e);
}

void options_init(struct options *o)
{
	*o = (struct options){
		.images_dir = ".",
		.log_level = LOG_WARN,
		.status_fd = -1,
		.ps_socket = -1,
		.threads = THREADS_DEFAULT,
		.listen_fd = -1,
		.restore_pidfd = -1,
		.images_fd = -1,
		.report_fd = -1,
	};
}

void options_free(struct options *o)
{
	while (o->owned) {
		struct owned *next = o->owned->next;

		free(o->owned);
		o->owned = next;
	}
	cleanup_close(&o->images_fd);
	o->images_fd = -1;
}

/* What must be known before anything else is judged. */
static void read_ahead(struct options *o, int argc, char **argv)
{
	struct walk w = walk_start(argc, argv);
	struct token t;

	while ((t = walk_next(&w)).kind != TOKEN_END) {
		if (t.kind != TOKEN_OPTION)
			continue;
		if (t.row->what == OPTION_HELP)
			o->help = true;
		else if (t.row->what == OPTION_VERSION)
			o->version = true;
		else if (t.row->what == OPTION_NO_DEFAULT_CONFIG)
			o->no_default_config = true;
		else if (t.row->what == OPTION_CONFIG)
			o->config = t.value;
	}
}

int options_parse(struct options *o, int argc, char **argv, struct error *e)
{
	struct walk w = walk_start(argc, argv);
	struct token t;
	int ret;

	read_ahead(o, argc, argv);
	if (o->help || o->version)
		return 0;
	ret = config_read_all(o, e);
	while (!ret && (t = walk_next(&w)).kind != TOKEN_END) {
		if (t.kind == TOKEN_BAD)
			ret = error_set(e, t.why.code, "%s", t.why.text);
		else if (t.kind == TOKEN_WORD)
			ret = error_set(e, -EINVAL, "%s: one word too many", argv[t.index]);
		else
			ret = set_option(o, t.row, t.off, t.value, FROM_COMMAND_LINE, e);
	}
	return ret;
}

int options_find_action(int argc, char **argv)
{
	struct walk w = walk_start(argc, argv);
	struct token t;

	while ((t = walk_next(&w)).kind != TOKEN_END)
		if (t.kind == TOKEN_WORD)
			return t.index;
	return 0;
}

int options_enter(struct options *o, struct error *e)
{
	const char *work_dir = o->work_dir ? o->work_dir : o->images_dir;

	o->images_fd = open(o->images_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->images_fd < 0)
		return error_errno(e, -errno, "images directory %s", o->images_dir);
	if (chdir(work_dir))
		return error_errno(e, -errno, "work directory %s", work_dir);
	o->progress = o->progress_when == PROGRESS_ALWAYS ||
		      (o->progress_when == PROGRESS_AUTO && !o->daemon && isatty(STDERR_FILENO));
	return 0;
}

void options_log(const struct options *o, const struct log *log)
{
	for (unsigned i = 0; i < o->nr_ignored; i++)
		log_info(log, "option --%s has no effect here", o->ignored[i]);
	if (o->config_unread)
		log_warn(log, "configuration file %s is not there", o->config_unread);
}

void options_help(const struct options *o, FILE *f)
{
	size_t count;
	const struct option_row *rows = option_table(&count);

	for (size_t i = 0; i < count; i++) {
		const struct option_row *row = &rows[i];
		char left[64];
		const char *line = row->help[action_of(o)];

		if (!line)
			continue;
		snprintf(left, sizeof(left),
			 row->value == VALUE_MAYBE ? "%s%s--%s[=%s]" : "%s%s--%s %s",
			 row->letter ? (char[]){'-', row->letter, 0} : "  ",
			 row->letter ? ", " : "  ", row->name,
			 row->value_name ? row->value_name : "");
		for (; line; left[0] = 0) {
			int len = (int)strcspn(line, "\n");

			fprintf(f, "  %-26s %.*s\n", left, len, line);
			line = line[len] ? line + len + 1 : NULL;
		}
	}
}
