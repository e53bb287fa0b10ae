// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control socket of --attach (control.h): status, and two requests that decide what becomes of
 * the source, each answered by {"done": true} or {"done": false, "why": "words"}:
 *
 *	abort		the source goes on
 *	confirm		a destination holds everything, says who knows better: the source ends
 *
 * The document of status has, beside what managers have: role "page-server", address (where
 * destinations connect), dump (its pid); state is "attached", "given up", "called off" or "lost".
 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "attach_server.h"
#include "compiler.h"

static void add_text(struct json_object *into, const char *key, const char *text)
{
	json_object_object_add(into, key, json_object_new_string(text));
}

static void add_number(struct json_object *into, const char *key, uint64_t number)
{
	json_object_object_add(into, key, json_object_new_uint64(number));
}

static void add_path(struct json_object *into, const char *key, const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);

	add_text(into, key, real ? real : path);
}

static void add_tasks(struct attach *a, struct json_object *into, uint64_t left)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < a->dump->ntasks; i++) {
		const struct dump_task *t = &a->dump->tasks[i];
		const struct checkpoint_task *c = checkpoint_task(a->checkpoint, t->image_pid);
		uint64_t npages = c ? c->extents.npages : 0, mine = MIN(npages, left);
		struct json_object *j = json_object_new_object();

		/* Nobody knows whose pages are left: the first ones' count as such. */
		left -= mine;
		add_number(j, "pid", (uint64_t)t->image_pid);
		add_number(j, "real_pid", (uint64_t)t->pid);
		add_text(j, "state",
			 task_is_gone(t->pid)			? "gone"
			 : task_is_traced(t->pid, a->dump->pid) ? "frozen"
								: "running");
		add_number(j, "pages_total", npages);
		add_number(j, "pages_left", mine);
		json_object_array_add(list, j);
	}
	json_object_object_add(into, "tasks", list);
}

static void status(void *context, struct json_object *into)
{
	static const char *const states[] = {
		[PHASE_ATTACHED] = "attached",
		[PHASE_GIVEN_UP] = "given up",
		[PHASE_CALLED_OFF] = "called off",
		[PHASE_LOST] = "lost",
	};
	struct attach *a = context;
	uint64_t has = attach_given(a);
	char path[32];

	add_text(into, "role", "page-server");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", a->o->images_fd);
	add_path(into, "images", path);
	add_path(into, "work", ".");
	add_text(into, "state", states[phase_now(a)]);
	add_text(into, "address", a->where);
	add_number(into, "dump", (uint64_t)a->dump->pid);
	add_number(into, "bytes", has << PAGE_SHIFT);
	add_tasks(a, into, a->npages - has);
}

/* No task whose memory is still arriving is ours: we are where it leaves. */
static enum control_holds holds(void *context, int pidfd)
{
	(void)context;
	(void)pidfd;
	return CONTROL_NO;
}

static void finish(void *context)
{
	(void)context;
}

static bool decide(void *context, const char *request, struct json_object *into)
{
	bool abort = !strcmp(request, "abort");
	struct attach *a = context;
	struct error e = {0};
	int ret;

	if (!abort && strcmp(request, "confirm"))
		return false;
	ret = abort ? attach_call_off(a, &e) : attach_give_up(a, &e);
	log_info(a->log, "%s by hand: %s", request, ret ? e.text : "done");
	json_object_object_add(into, "done", json_object_new_boolean(!ret));
	if (ret)
		add_text(into, "why", e.text);
	return true;
}

void attach_control_serve(struct attach *a)
{
	static const struct control_ops ops = {status, holds, finish, decide};

	control_serve(a->control, &ops, a);
}
