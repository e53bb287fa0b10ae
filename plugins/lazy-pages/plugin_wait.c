// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A dump waits for memory that is still arriving: finds the managers of the armed tasks through
 * their control sockets, has them finish without background limits, and returns when no task is
 * armed any more. Only the kernel's word counts for that, not a manager's. If nobody answers for a
 * task, or the time is over, the dump is refused, for it would lose what has not come. In CRIU's
 * thread, before it freezes the tasks (see plugin.c).
 */
#include "plugin.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdint.h>
#include <string.h>
#include <sys/pidfd.h>
#include <time.h>

#include "compiler.h"
#include "control.h"

#define CONFIG_FILE	  "/etc/criu/lazy-pages.conf"
#define WAIT_DEFAULT	  600 /* seconds */
#define ASK_EVERY_MS	  1000
#define ASK_TIMEOUT_MS	  1000 /* a manager serves its control socket at all times */
#define UNANSWERED_MS	  5000 /* a worker that died has long been replaced by then */
#define PROGRESS_MS	  2000
#define LOOK_EVERY_MIN_MS 20

struct wait {
	int64_t begun, answered, asked, told; /* monotonic milliseconds; asked 0: not yet */
	bool *found;			      /* by armed task: a manager answers for it */
	uint64_t pages_left, pages_total;     /* of the managers that answered */
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool number_parse(const char *text, unsigned *number)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	end += strspn(end, " \t\n");
	if (errno || end == text || *end || *text == '-' || value > 1000000000)
		return false;
	*number = (unsigned)value;
	return true;
}

unsigned dump_wait_seconds(void)
{
	static const char key[] = "dump-wait-seconds";
	const char *env = secure_getenv("CRIU_LAZY_PAGES_DUMP_WAIT");
	const char *path = secure_getenv("CRIU_LAZY_PAGES_CONFIG");
	_cleanup_fclose_ FILE *config = NULL;
	unsigned seconds = WAIT_DEFAULT;
	char line[256], *at;

	if (env) {
		if (!number_parse(env, &seconds))
			plugin_log(LOG_WARN, "CRIU_LAZY_PAGES_DUMP_WAIT: '%s' is not a number",
				   env);
		return seconds;
	}
	config = fopen(path ? path : CONFIG_FILE, "re");
	while (config && fgets(line, sizeof(line), config)) {
		line[strcspn(line, "#")] = 0;
		at = line + strspn(line, " \t");
		if (strncmp(at, key, strlen(key)))
			continue;
		at += strlen(key);
		at += strspn(at, " \t=");
		if (!number_parse(at, &seconds))
			plugin_log(LOG_WARN, "%s: %s is not a number", path ? path : CONFIG_FILE,
				   key);
	}
	return seconds;
}

static uint64_t number_of(struct json_object *from, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(from, key, &value) ? json_object_get_uint64(value) : 0;
}

static void progress_ask(struct wait *w, int fd)
{
	struct json_object *reply, *tasks, *task;

	if (control_ask(fd, "status", -1, ASK_TIMEOUT_MS, &reply, NULL))
		return;
	if (json_object_object_get_ex(reply, "tasks", &tasks) &&
	    json_object_is_type(tasks, json_type_array)) {
		for (size_t i = 0; i < json_object_array_length(tasks); i++) {
			task = json_object_array_get_idx(tasks, i);
			w->pages_left += number_of(task, "pages_left");
			w->pages_total += number_of(task, "pages_total");
		}
	}
	json_object_put(reply);
}

/* Whether the manager behind @fd may be the task's. */
static bool manager_holds(int fd, pid_t pid)
{
	_cleanup_close_ int pidfd = pidfd_open(pid, 0);
	struct json_object *reply, *holds;
	bool may = false;

	if (pidfd < 0 || control_ask(fd, "holds", pidfd, ASK_TIMEOUT_MS, &reply, NULL))
		return false;
	if (json_object_object_get_ex(reply, "holds", &holds))
		may = strcmp(json_object_get_string(holds) ?: "", "no") != 0;
	json_object_put(reply);
	return may;
}

static void manager_ask(struct wait *w, pid_t manager, const struct armed *armed)
{
	_cleanup_close_ int fd = control_connect(manager, ASK_TIMEOUT_MS, NULL);
	struct json_object *reply;
	bool any = false;

	for (size_t i = 0; fd >= 0 && i < armed->count; i++) {
		if (manager_holds(fd, armed->pids[i]))
			w->found[i] = any = true;
	}
	if (!any || control_ask(fd, "finish", -1, ASK_TIMEOUT_MS, &reply, NULL))
		return;
	json_object_put(reply);
	progress_ask(w, fd);
}

/* Asks all managers; leaves in *@orphan a task that none answers for, or 0. */
static int managers_ask(struct wait *w, const struct armed *armed, pid_t *orphan, struct error *e)
{
	struct control_list managers;
	int err = control_list(&managers, e);

	*orphan = 0;
	if (err)
		return err;
	w->found = calloc(armed->count, sizeof(*w->found));
	if (!w->found) {
		control_list_free(&managers);
		return error_errno(e, -ENOMEM, "asking the managers");
	}
	w->pages_left = w->pages_total = 0;
	for (size_t i = 0; i < managers.count; i++)
		manager_ask(w, managers.pids[i], armed);
	for (size_t i = 0; i < armed->count; i++)
		if (!w->found[i])
			*orphan = armed->pids[i];
	free(steal_pointer(&w->found));
	control_list_free(&managers);
	return 0;
}

static void progress_tell(struct wait *w, int64_t now)
{
	if (now - w->told < PROGRESS_MS)
		return;
	w->told = now;
	plugin_log(LOG_INFO, "waiting for %llu of %llu MiB, %llu s so far",
		   (unsigned long long)(w->pages_left >> (20 - PAGE_SHIFT)),
		   (unsigned long long)(w->pages_total >> (20 - PAGE_SHIFT)),
		   (unsigned long long)(now - w->begun) / 1000);
}

/* One look at the managers and at the clock; an error when there is no use in waiting on. */
static int wait_check(struct wait *w, const struct armed *armed, unsigned seconds, struct error *e)
{
	int64_t now = now_ms();
	pid_t orphan = 0;
	int err;

	if (!w->asked || now - w->asked >= ASK_EVERY_MS) {
		err = managers_ask(w, armed, &orphan, e);
		if (err)
			return err;
		w->asked = now = now_ms();
		if (!orphan)
			w->answered = now;
		progress_tell(w, now);
	}
	if (orphan && now - w->answered >= MIN(UNANSWERED_MS, (int64_t)seconds * 1000))
		return error_set(e, -EBUSY,
				 "task %d: part of its memory has not arrived, and no manager in "
				 "%s answers for it; a dump would lose that part",
				 orphan, control_rundir());
	if (now - w->begun >= (int64_t)seconds * 1000)
		return error_set(e, -EBUSY,
				 "task %d: part of its memory has not arrived within %u s "
				 "(dump-wait-seconds); a dump would lose that part",
				 armed->pids[0], seconds);
	return 0;
}

/* Looking costs the kernel a walk over the page tables: it gets a fifth of the time at most. */
static void pause_after(int64_t looked_ms)
{
	int64_t ms = MAX((int64_t)LOOK_EVERY_MIN_MS, looked_ms * 4);
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

int dump_wait(pid_t task, bool below, unsigned seconds, struct error *e)
{
	struct wait w = {.begun = now_ms()};
	struct armed armed;
	int64_t looked;
	int err;

	w.answered = w.told = w.begun;
	err = armed_find(task, below, &armed, e);
	if (err || !armed.count)
		return err ? err : -ENOTSUP;
	plugin_log(LOG_INFO, "task %d and %zu more: memory is still arriving, waiting at most %u s",
		   armed.pids[0], armed.count - 1, seconds);
	for (;;) {
		err = wait_check(&w, &armed, seconds, e);
		armed_free(&armed);
		if (err)
			return err;
		looked = now_ms();
		err = armed_find(task, below, &armed, e);
		if (err)
			return err;
		if (!armed.count)
			break;
		pause_after(now_ms() - looked);
	}
	plugin_log(LOG_INFO, "all memory has arrived after %lld ms",
		   (long long)(now_ms() - w.begun));
	return 0;
}
