/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plugin: lazy_pages_plugin.so, which CRIU loads into itself. On restore it listens on the hand-off
 * socket before CRIU connects and starts the manager (plugin_start.c); on dump it holds CRIU back
 * until the memory of the tasks has arrived, or refuses (plugin_wait.c). Everything runs in CRIU's
 * one thread. Nothing here is seen from outside the plugin but its descriptor (plugin.c).
 */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <stdbool.h>
#include <sys/types.h>

#include "error.h"
#include "log.h"

#pragma GCC visibility push(hidden)

/* Into CRIU's log, or to stderr where CRIU does not offer one. Values of LOG_* are CRIU's. */
void plugin_log(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Restore. @images is CRIU's descriptor of the images directory, the current directory is the work
 * directory. 0 and *@started false: somebody else listens there. On failure nobody listens, and
 * nothing is left behind.
 */
int manager_start(int images, bool *started, struct error *e);
/*
 * The restore is over: a manager that CRIU has not connected to may leave. Harmless when it has.
 * @work is an O_PATH descriptor of the work directory.
 */
void manager_dismiss(int work);

/* The seconds that a dump may wait, from environment, configuration file or our own default. */
unsigned dump_wait_seconds(void);
/*
 * Dump. Returns 0 when neither @task, nor, with @below, a task beneath it is armed any more,
 * -ENOTSUP when none was, and an error when one still is: no manager answers for it, or @seconds
 * have passed.
 */
int dump_wait(pid_t task, bool below, unsigned seconds, struct error *e);

/* The armed tasks: parts of their memory are still to come, and faults in it go to a manager. */
struct armed {
	pid_t *pids;
	size_t count;
};

/* @task, and with @below all beneath it. A task that ends meanwhile is not armed. */
int armed_find(pid_t task, bool below, struct armed *armed, struct error *e);
void armed_free(struct armed *armed);

#pragma GCC visibility pop

#endif
