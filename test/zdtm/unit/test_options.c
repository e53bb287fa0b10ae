// SPDX-License-Identifier: GPL-2.0-or-later
/* Command lines and configuration files: what is understood, what is refused, which of two wins. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compiler.h"
#include "config_file.h"
#include "option_table.h"
#include "options.h"

#define ARGV(...)   ((char *[]){"lazy-pages", __VA_ARGS__, NULL})
#define SERVER(...) ((char *[]){"page-server", __VA_ARGS__, NULL})

static int parse(struct options *o, char **argv, struct error *e)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	*e = (struct error){0};
	options_init(o);
	o->action = argv[0];
	return options_parse(o, argc, argv, e);
}

static void accept_line(struct options *o, char **argv)
{
	struct error e;

	if (parse(o, argv, &e))
		fail_msg("%s", e.text);
}

static void refuse_line(char **argv, const char *expected)
{
	struct options o;
	struct error e;

	assert_int_equal(parse(&o, argv, &e), -EINVAL);
	if (!strstr(e.text, expected))
		fail_msg("'%s' has no '%s' in it", e.text, expected);
	options_free(&o);
}

static void defaults_are_stocks(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--no-default-config"));
	assert_string_equal(o.images_dir, ".");
	assert_null(o.work_dir);
	assert_null(o.log_file);
	assert_int_equal(o.log_level, 2);
	assert_int_equal(o.status_fd, -1);
	assert_int_equal(o.ps_socket, -1);
	assert_int_equal(o.listen_fd, -1);
	assert_int_equal(o.restore_pidfd, -1);
	assert_int_equal(o.timeout_seconds, 0);
	assert_int_equal(o.threads, 2);
	assert_int_equal(o.thp, THP_AUTO);
	assert_int_equal(o.progress_when, PROGRESS_AUTO);
	assert_false(o.daemon || o.page_server || o.tls || o.display_stats || o.log_pid);
	assert_int_equal(o.nr_ignored, 0);
}

static void line_of_zdtm_is_understood(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--no-default-config", "--log-file", "l.log", "--images-dir", "img",
			     "--verbosity=4", "--page-server", "--port", "12345", "--address",
			     "127.0.0.1", "--status-fd", "7"));
	assert_string_equal(o.log_file, "l.log");
	assert_string_equal(o.images_dir, "img");
	assert_int_equal(o.log_level, 4);
	assert_true(o.page_server);
	assert_int_equal(o.port, 12345);
	assert_string_equal(o.address, "127.0.0.1");
	assert_int_equal(o.status_fd, 7);
	assert_true(o.no_default_config);
}

static void letters_cluster_and_take_the_rest_of_the_word(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("-dDimg", "-W", "work", "-ol.log", "-jv3"));
	assert_true(o.daemon);
	assert_string_equal(o.images_dir, "img");
	assert_string_equal(o.work_dir, "work");
	assert_string_equal(o.log_file, "l.log");
	assert_int_equal(o.log_level, 3);
}

static int level_of(char **argv)
{
	struct options o;

	accept_line(&o, argv);
	return o.log_level;
}

static void verbosity_counts_as_stocks(void **state)
{
	(void)state;
	assert_int_equal(level_of(ARGV("-v")), 3);
	assert_int_equal(level_of(ARGV("-vv")), 4);
	assert_int_equal(level_of(ARGV("-v", "-v")), 4);
	assert_int_equal(level_of(ARGV("-vvvv")), 6);
	assert_int_equal(level_of(ARGV("-v4")), 4);
	assert_int_equal(level_of(ARGV("-v0")), 0);
	assert_int_equal(level_of(ARGV("-v1", "-v")), 2);
	assert_int_equal(level_of(ARGV("--verbosity")), 3);
	assert_int_equal(level_of(ARGV("--verbosity=1")), 1);
	refuse_line(ARGV("-vx"), "-v");
	refuse_line(ARGV("--verbosity=many"), "verbosity");
	refuse_line(ARGV("-v", "4"), "4: one word too many");
}

static void later_switches_win(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--daemon", "--no-daemon", "--no-tls", "--tls", "-D", "a", "-D", "b"));
	assert_false(o.daemon);
	assert_true(o.tls);
	assert_string_equal(o.images_dir, "b");
}

static void our_options_are_understood(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--threads", "7", "--json", "s.json", "--thp=never", "--timeout", "30",
			     "--listen-fd", "5", "--restore-pidfd", "6", "--progress"));
	assert_int_equal(o.threads, 7);
	assert_string_equal(o.json_file, "s.json");
	assert_int_equal(o.thp, THP_NEVER);
	assert_int_equal(o.timeout_seconds, 30);
	assert_int_equal(o.listen_fd, 5);
	assert_int_equal(o.restore_pidfd, 6);
	assert_int_equal(o.progress_when, PROGRESS_ALWAYS);
	accept_line(&o, ARGV("--progress=never"));
	assert_int_equal(o.progress_when, PROGRESS_NEVER);
}

static void options_of_the_page_server_are_understood(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, SERVER("--lazy-pages", "--once", "--no-once", "--auto-dedup", "--attach",
			       "host:7", "--port", "0", "--ps-layout", "24", "--threads", "9"));
	assert_true(o.lazy_pages && o.auto_dedup && !o.once);
	assert_string_equal(o.attach, "host:7");
	assert_int_equal(o.port, 0);
	assert_int_equal(o.ps_layout, 24);
	assert_int_equal(o.threads, 9);
	assert_int_equal(o.nr_ignored, 0);
	accept_line(&o, SERVER("--ps-layout=32"));
	assert_int_equal(o.ps_layout, 32);
	assert_false(o.once || o.lazy_pages || o.auto_dedup || o.attach);
	refuse_line(SERVER("--ps-layout", "28"), "--ps-layout 28");
}

static void options_of_the_other_action_are_noted(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--lazy-pages", "--auto-dedup", "--once", "--attach", "a:1"));
	assert_false(o.lazy_pages || o.auto_dedup || o.once || o.attach);
	assert_int_equal(o.nr_ignored, 4);
	options_free(&o);
	accept_line(&o, SERVER("--page-server", "--thp", "no such", "--progress", "--timeout", "x",
			       "--listen-fd", "5", "--restore-pidfd", "6"));
	assert_false(o.page_server);
	assert_int_equal(o.listen_fd, -1);
	assert_int_equal(o.nr_ignored, 6);
	options_free(&o);
}

static void what_makes_no_sense_is_refused_with_a_reason(void **state)
{
	(void)state;
	refuse_line(ARGV("--frobnicate"), "unknown option --frobnicate");
	refuse_line(ARGV("-q"), "unknown option -q");
	refuse_line(ARGV("--tls-c", "x"), "ambiguous");
	refuse_line(ARGV("--images-dir"), "needs a value");
	refuse_line(ARGV("-D"), "-D needs a value");
	refuse_line(ARGV("--daemon=yes"), "takes no value");
	refuse_line(ARGV("--no-images-dir", "x"), "unknown option");
	refuse_line(ARGV("--threads", "0"), "1 to 64");
	refuse_line(ARGV("--threads", "65"), "1 to 64");
	refuse_line(ARGV("--threads", "2x"), "--threads 2x");
	refuse_line(ARGV("--threads", ""), "--threads");
	refuse_line(ARGV("--port", "65536"), "65535");
	refuse_line(ARGV("--port", "0"), "--port 0");
	refuse_line(ARGV("--status-fd", "-1"), "--status-fd -1");
	refuse_line(ARGV("--timeout", "99999999999999999999"), "--timeout");
	refuse_line(ARGV("--thp", "always"), "--thp always");
	refuse_line(ARGV("--progress=maybe"), "--progress maybe");
	refuse_line(ARGV("lazy-pages"), "one word too many");
	refuse_line(ARGV("--", "-d"), "-d: one word too many");
}

static void beginnings_of_names_will_do(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--images", "i", "--work=w", "--no-dae", "--thr", "3"));
	assert_string_equal(o.images_dir, "i");
	assert_string_equal(o.work_dir, "w");
	assert_int_equal(o.threads, 3);
	/* tls is the beginning of seven names and one of them */
	accept_line(&o, ARGV("--tls"));
	assert_true(o.tls);
}

static void help_is_given_whatever_else_is_wrong(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--frobnicate", "-h"));
	assert_true(o.help);
	accept_line(&o, ARGV("--version", "--threads", "0"));
	assert_true(o.version);
	accept_line(&o, ARGV("-D", "-h"));
	assert_false(o.help);
	assert_string_equal(o.images_dir, "-h");
}

/* Every row without effect: passes, is noted once, and takes just the words it should. */
static void every_other_option_of_stock_is_noted(void **state)
{
	size_t count;
	const struct option_row *rows = option_table(&count);
	unsigned seen = 0;

	(void)state;
	for (size_t i = 0; i < count; i++) {
		bool needs = rows[i].value == VALUE_NEEDED;
		struct options o;
		char name[64];

		if (rows[i].what != OPTION_IGNORED)
			continue;
		snprintf(name, sizeof(name), "--%s", rows[i].name);
		if (needs)
			accept_line(&o, ARGV("--no-default-config", name, "-d", "-D", "img", name,
					     "x"));
		else
			accept_line(&o, ARGV("--no-default-config", name, "-D", "img", name));
		assert_string_equal(o.images_dir, "img");
		assert_false(o.daemon);
		assert_int_equal(o.nr_ignored, 1);
		assert_string_equal(o.ignored[0], rows[i].name);
		if (rows[i].value == VALUE_SWITCH) {
			snprintf(name, sizeof(name), "--no-%s", rows[i].name);
			accept_line(&o, ARGV("--no-default-config", name));
			assert_int_equal(o.nr_ignored, 1);
		}
		seen++;
	}
	assert_in_range(seen, 50, OPTIONS_MAX_IGNORED);
}

static void names_and_letters_are_there_once(void **state)
{
	size_t count;
	const struct option_row *rows = option_table(&count);

	(void)state;
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < i; j++) {
			assert_string_not_equal(rows[i].name, rows[j].name);
			assert_true(!rows[i].letter || rows[i].letter != rows[j].letter);
		}
}

static int action_of(char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return options_find_action(argc, argv);
}

static void action_is_the_first_word_that_is_no_value(void **state)
{
	(void)state;
	assert_int_equal(action_of(ARGV("dump", "-D", "x")), 1);
	assert_int_equal(action_of(ARGV("-D", "dump", "lazy-pages")), 3);
	assert_int_equal(action_of(ARGV("-vvv", "lazy-pages")), 2);
	assert_int_equal(action_of(ARGV("-v", "lazy-pages")), 2);
	assert_int_equal(action_of(ARGV("-vD", "dump", "lazy-pages")), 2);
	assert_int_equal(action_of(ARGV("--cpu-cap", "dump")), 2);
	assert_int_equal(action_of(ARGV("--images-dir=x", "dump")), 2);
	assert_int_equal(action_of(ARGV("--ghost-limit", "1M", "dump")), 3);
	assert_int_equal(action_of(ARGV("-t", "12", "-j", "dump")), 4);
	assert_int_equal(action_of(ARGV("--not-known-yet", "dump")), 2);
	assert_int_equal(action_of(ARGV("--", "dump")), 2);
	assert_int_equal(action_of(ARGV("-V")), 0);
	assert_int_equal(action_of(ARGV("-D", "dump")), 0);
	assert_int_equal(action_of((char *[]){NULL}), 0);
}

static void check_line(const char *text, const char *name, const char *value)
{
	char line[128], *n, *v;

	snprintf(line, sizeof(line), "%s", text);
	assert_int_equal(config_parse_line(line, &n, &v, NULL), 0);
	assert_true(!n == !name && !v == !value);
	if (n)
		assert_string_equal(n, name);
	if (v)
		assert_string_equal(v, value);
}

static void lines_of_configuration_files_are_taken_apart(void **state)
{
	char open_quote[] = "work-dir \"a b";
	char *n, *v;

	(void)state;
	check_line("", NULL, NULL);
	check_line("\n", NULL, NULL);
	check_line("  # a comment\n", NULL, NULL);
	check_line("#comment", NULL, NULL);
	check_line("daemon\n", "daemon", NULL);
	check_line("\tdaemon  # in the background\n", "daemon", NULL);
	check_line("work-dir /a/b\n", "work-dir", "/a/b");
	check_line("work-dir\t/a/b # there\n", "work-dir", "/a/b");
	check_line("work-dir=/a/b\r\n", "work-dir", "/a/b");
	check_line("work-dir /a#b c\n", "work-dir", "/a#b");
	check_line("work-dir \"a b\" # c\n", "work-dir", "a b");
	check_line("work-dir=\"a b\"", "work-dir", "a b");
	check_line("work-dir \"my \\\"own\\\" \\n\"\n", "work-dir", "my \"own\" \\n");
	check_line("log-file \"\"\n", "log-file", "");
	check_line("log-file=\n", "log-file", "");
	assert_int_equal(config_parse_line(open_quote, &n, &v, NULL), -EINVAL);
}

struct files {
	char dir[64], global[96], home[96], env[96];
};

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int make_files(void **state)
{
	struct files *f = calloc(1, sizeof(*f));
	char sub[96];

	snprintf(f->dir, sizeof(f->dir), "/tmp/test-options-XXXXXX");
	if (!f || !mkdtemp(f->dir))
		return -1;
	snprintf(sub, sizeof(sub), "%s/.criu", f->dir);
	mkdir(sub, 0700);
	snprintf(f->home, sizeof(f->home), "%s/.criu/default.conf", f->dir);
	snprintf(f->env, sizeof(f->env), "%s/env.conf", f->dir);
	snprintf(f->global, sizeof(f->global), "%s/named.conf", f->dir);
	write_file(f->home,
		   "work-dir home\nlog-file home\ntimeout 9\nthreads 5\ntcp-established\n");
	write_file(f->env, "log-file \"the env\"\n");
	write_file(f->global, "log-file named\nthreads=4\ntimeout 8\n");
	setenv("HOME", f->dir, 1);
	unsetenv("CRIU_CONFIG_FILE");
	*state = f;
	return 0;
}

static int remove_files(void **state)
{
	struct files *f = *state;
	char sub[96];

	snprintf(sub, sizeof(sub), "%s/.criu", f->dir);
	unlink(f->home);
	unlink(f->env);
	unlink(f->global);
	rmdir(sub);
	rmdir(f->dir);
	unsetenv("CRIU_CONFIG_FILE");
	setenv("HOME", "/nonexistent", 1);
	free(f);
	return 0;
}

static void default_files_are_read_and_the_command_line_wins(void **state)
{
	struct files *f = *state;
	struct options o;

	setenv("CRIU_CONFIG_FILE", f->env, 1);
	accept_line(&o, ARGV("--threads", "3"));
	assert_string_equal(o.work_dir, "home");
	assert_string_equal(o.log_file, "the env");
	assert_int_equal(o.threads, 3);
	options_free(&o);
}

/* There it is the time that a dump gives its tasks; a manager that gave up by it would surprise. */
static void timeout_of_the_default_files_is_not_ours(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("-d"));
	assert_int_equal(o.timeout_seconds, 0);
	assert_int_equal(o.nr_ignored, 2);
	options_free(&o);
}

static void named_file_replaces_the_default_ones(void **state)
{
	struct files *f = *state;
	struct options o;

	setenv("CRIU_CONFIG_FILE", f->env, 1);
	accept_line(&o, ARGV("--config", f->global));
	assert_null(o.work_dir);
	assert_string_equal(o.log_file, "named");
	assert_int_equal(o.threads, 4);
	assert_int_equal(o.timeout_seconds, 8);
	options_free(&o);
}

static void no_default_config_leaves_the_environments_file(void **state)
{
	struct files *f = *state;
	struct options o;

	setenv("CRIU_CONFIG_FILE", f->env, 1);
	accept_line(&o, ARGV("--no-default-config"));
	assert_null(o.work_dir);
	assert_string_equal(o.log_file, "the env");
	options_free(&o);
}

static void missing_named_file_is_remembered(void **state)
{
	struct options o;

	(void)state;
	accept_line(&o, ARGV("--config=/nonexistent/x.conf"));
	assert_string_equal(o.config_unread, "/nonexistent/x.conf");
}

static void mistakes_in_files_are_named_by_file_and_line(void **state)
{
	struct files *f = *state;

	write_file(f->global, "# fine\nthreads 3\nfrobnicate\n");
	refuse_line(ARGV("--config", f->global), "named.conf: line 3: unknown option frobnicate");
	write_file(f->global, "work-dir\n");
	refuse_line(ARGV("--config", f->global), "line 1: option work-dir needs a value");
	write_file(f->global, "--daemon\n");
	refuse_line(ARGV("--config", f->global), "without dashes");
	write_file(f->global, "log-file \"x\n");
	refuse_line(ARGV("--config", f->global), "quote");
}

static void closing_a_standard_descriptor_leaves_dev_null_there(void **state)
{
	struct stat before, after, null;
	struct options o;
	int saved = dup(STDIN_FILENO), fd = open("/dev/zero", O_RDONLY);
	char number[16];

	(void)state;
	assert_true(saved >= 0 && fd > STDERR_FILENO);
	assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
	fstat(STDIN_FILENO, &before);
	snprintf(number, sizeof(number), "%d", fd);
	accept_line(&o, ARGV("--close", "0", "--close", number));
	assert_int_equal(fstat(STDIN_FILENO, &after), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	stat("/dev/null", &null);
	assert_int_equal(after.st_rdev, null.st_rdev);
	assert_int_not_equal(after.st_rdev, before.st_rdev);
	dup2(saved, STDIN_FILENO);
	close(saved);
}

#define WITH_FILES(test) cmocka_unit_test_setup_teardown(test, make_files, remove_files)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_stocks),
		cmocka_unit_test(line_of_zdtm_is_understood),
		cmocka_unit_test(letters_cluster_and_take_the_rest_of_the_word),
		cmocka_unit_test(verbosity_counts_as_stocks),
		cmocka_unit_test(later_switches_win),
		cmocka_unit_test(our_options_are_understood),
		cmocka_unit_test(options_of_the_page_server_are_understood),
		cmocka_unit_test(options_of_the_other_action_are_noted),
		cmocka_unit_test(what_makes_no_sense_is_refused_with_a_reason),
		cmocka_unit_test(beginnings_of_names_will_do),
		cmocka_unit_test(help_is_given_whatever_else_is_wrong),
		cmocka_unit_test(every_other_option_of_stock_is_noted),
		cmocka_unit_test(names_and_letters_are_there_once),
		cmocka_unit_test(action_is_the_first_word_that_is_no_value),
		cmocka_unit_test(lines_of_configuration_files_are_taken_apart),
		WITH_FILES(default_files_are_read_and_the_command_line_wins),
		WITH_FILES(timeout_of_the_default_files_is_not_ours),
		WITH_FILES(named_file_replaces_the_default_ones),
		WITH_FILES(no_default_config_leaves_the_environments_file),
		cmocka_unit_test(missing_named_file_is_remembered),
		WITH_FILES(mistakes_in_files_are_named_by_file_and_line),
		cmocka_unit_test(closing_a_standard_descriptor_leaves_dev_null_there),
	};

	setenv("HOME", "/nonexistent", 1);
	unsetenv("CRIU_CONFIG_FILE");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
