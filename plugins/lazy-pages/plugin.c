// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What CRIU calls: the plugin's descriptor and its hooks (see plugin.h). The layout of the
 * descriptor and the numbers of the hooks are CRIU's binary interface since 4.0. CRIU refuses a
 * plugin that declares more hooks than it knows: 4.1 knows 12, 4.2 knows 13, and we need 11, up to
 * PAUSE_DEVICES. 3.17 knows 10 and would not call us before it freezes a task, which is why it
 * refuses us. We never enter the inventory's list of plugins: images stay restorable without us.
 *
 * CRIU asks plugins one after the other, in the order of their directory, until one answers with
 * anything but -ENOTSUP; so we answer 0 never. It also means that a plugin in front of us which
 * answers 0 for every task (CUDA's does on a machine with such a GPU) hides a dump from us.
 *
 * CRIU runs PAUSE_DEVICES for the root of the tree before it freezes anything, for every other task
 * after its parent was seized (with a freezer cgroup: after all are frozen) and before the task
 * itself is; dump and pre-dump alike. So the first call waits for the whole tree while it still
 * runs, and the calls for the others find what was forked meanwhile.
 *
 * RESUME_DEVICES_LATE comes at the end of a restore, before tasks run. It is the first moment at
 * which we know that CRIU will not connect any more; exit() may be called only after the restored
 * root has ended.
 */
#include "plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include "compiler.h"

enum stage {
	STAGE_DUMP,
	STAGE_PRE_DUMP,
	STAGE_RESTORE,
};

enum hook {
	HOOK_RESUME_DEVICES_LATE = 9,
	HOOK_PAUSE_DEVICES = 10,
	HOOKS,
};

struct plugin_descriptor {
	const char *name;
	int (*init)(int stage);
	void (*exit)(int stage, int ret);
	unsigned version;
	unsigned max_hooks;
	void *hooks[HOOKS];
};

/* CRIU's own; absent in none of the versions known, but a plugin must load without. */
extern int criu_get_image_dir(void) __attribute__((weak));
extern void print_on_level(unsigned level, const char *fmt, ...)
	__attribute__((weak, format(printf, 2, 3)));

/* The hooks get no context from CRIU, so this is the one place for it; CRIU has one thread. */
static struct {
	enum stage stage;
	int work; /* O_PATH of the directory whose manager is to be dismissed, or -1 */
	bool whole_tree_seen;
} plugin = {.work = -1};

void plugin_log(enum log_level level, const char *fmt, ...)
{
	static const char *const front[] = {[LOG_ERROR] = "Error (", [LOG_WARN] = "Warn  ("};
	const char *open = level == LOG_ERROR || level == LOG_WARN ? front[level] : "";
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (print_on_level)
		print_on_level(level, "%slazy-pages-plugin%s: %s\n", open, *open ? ")" : "", text);
	else if (level <= LOG_WARN)
		fprintf(stderr, "%slazy-pages-plugin%s: %s\n", open, *open ? ")" : "", text);
}

static void restore_begin(void)
{
	struct error e = {0};
	bool started = false;

	if (!criu_get_image_dir)
		return;
	if (manager_start(criu_get_image_dir(), &started, &e)) {
		plugin_log(LOG_WARN, "no manager: %s; a restore with --lazy-pages will fail",
			   e.text);
		return;
	}
	if (started)
		plugin.work = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void restore_over(void)
{
	if (plugin.work < 0)
		return;
	manager_dismiss(plugin.work);
	close(steal_fd(&plugin.work));
}

/* A restore that could be eager never fails because of us. */
static int plugin_init(int stage)
{
	plugin.stage = (enum stage)stage;
	plugin.whole_tree_seen = false;
	if (stage == STAGE_RESTORE)
		restore_begin();
	return 0;
}

static void plugin_exit(int stage, int ret)
{
	(void)ret;
	if (stage == STAGE_RESTORE)
		restore_over();
}

static int resume_devices_late(int pid)
{
	(void)pid;
	if (plugin.stage == STAGE_RESTORE)
		restore_over();
	return -ENOTSUP;
}

static int pause_devices(int pid)
{
	struct error e = {0};
	unsigned alarm_left;
	int err;

	if (plugin.stage == STAGE_RESTORE)
		return -ENOTSUP;
	/* CRIU has set an alarm of its --timeout (10 s) for freezing; our wait is not part of it.
	 */
	alarm_left = alarm(0);
	err = dump_wait(pid, !plugin.whole_tree_seen, dump_wait_seconds(), &e);
	plugin.whole_tree_seen = true;
	if (alarm_left)
		alarm(alarm_left);
	if (err && err != -ENOTSUP) {
		plugin_log(LOG_ERROR, "refusing to dump: %s", e.text);
		return err;
	}
	/* With 0, CRIU would not ask the plugins behind us. */
	return -ENOTSUP;
}

__attribute__((visibility("default"))) struct plugin_descriptor CR_PLUGIN_DESC = {
	.name = "lazy_pages_plugin",
	.init = plugin_init,
	.exit = plugin_exit,
	.version = (0 << 16) + (2 << 8) + 0,
	.max_hooks = HOOKS,
	.hooks =
		{
			[HOOK_RESUME_DEVICES_LATE] = resume_devices_late,
			[HOOK_PAUSE_DEVICES] = pause_devices,
		},
};
