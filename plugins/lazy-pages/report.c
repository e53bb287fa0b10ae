// SPDX-License-Identifier: GPL-2.0-or-later
/* Progress, summary, JSON and status: see report.h. */
#include "report.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "compiler.h"
#include "control.h"
#include "worker.h"

static uint64_t pages_placed(const struct tally *t)
{
	uint64_t n = 0;

	for (int i = 0; i < CAUSES; i++)
		n += t->placed[i];
	return n;
}

static double seconds_since(uint64_t ns)
{
	return ns ? (double)(now_ns() - ns) / 1e9 : 0;
}

static uint64_t pages_left(const struct worker *w)
{
	const struct journal *j = w->journal;
	uint64_t left = 0;

	pthread_mutex_lock((pthread_mutex_t *)&w->slot_lock);
	for (uint32_t i = 0; i < j->nslots; i++)
		left += j->slot[i] ? owed_left(j->slot[i]->owed) : 0;
	pthread_mutex_unlock((pthread_mutex_t *)&w->slot_lock);
	return left;
}

static void put(struct json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_uint64(value));
}

static struct json_object *pages_json(const struct tally *t)
{
	struct json_object *o = json_object_new_object();

	put(o, "fault", t->placed[CAUSE_FAULT]);
	put(o, "neighbour", t->placed[CAUSE_NEIGHBOUR]);
	put(o, "background", t->placed[CAUSE_BACKGROUND]);
	put(o, "zero", t->zero);
	put(o, "already_there", t->existed);
	put(o, "forgiven", t->forgiven);
	return o;
}

static struct json_object *latency_json(const struct tally *t)
{
	struct json_object *o = json_object_new_object(), *buckets = json_object_new_array();

	put(o, "count", t->stalls);
	put(o, "sum_ns", t->stall_ns);
	put(o, "max_ns", t->stall_max_ns);
	put(o, "p50_ns", tally_quantile(t, 500));
	put(o, "p99_ns", tally_quantile(t, 990));
	for (size_t i = 0; i < TALLY_BUCKETS; i++)
		json_object_array_add(buckets, json_object_new_uint64(t->bucket[i]));
	json_object_object_add(o, "buckets", buckets);
	return o;
}

/* What status and summary have in common. */
static void counters_json(const struct worker *w, struct json_object *o)
{
	const struct journal *j = w->journal;
	struct tally t;

	worker_tally(w, &t);
	json_object_object_add(o, "seconds",
			       json_object_new_double(seconds_since(j->connected_ns)));
	put(o, "bytes", pages_placed(&t) * PAGE_SIZE);
	put(o, "tasks_seen", j->tasks_seen);
	put(o, "tasks_forked", j->tasks_forked);
	put(o, "workers", j->workers);
	json_object_object_add(o, "pages", pages_json(&t));
	put(o, "faults", t.faults);
	put(o, "zero_faults", t.zero_faults);
	put(o, "events", t.events);
	json_object_object_add(o, "latency", latency_json(&t));
}

static struct json_object *tasks_json(const struct worker *w)
{
	struct json_object *all = json_object_new_array();
	struct journal *j = w->journal;

	pthread_mutex_lock((pthread_mutex_t *)&w->slot_lock);
	for (uint32_t i = 0; i < j->nslots; i++) {
		const struct task_record *r = j->slot[i];
		struct json_object *o;

		if (!r)
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "pid", json_object_new_int(r->pid));
		json_object_object_add(o, "real_pid", json_object_new_int(r->real_pid));
		json_object_object_add(o, "state", json_object_new_string("lazy"));
		put(o, "pages_total", owed_npages(r->owed));
		put(o, "pages_left", owed_left(r->owed));
		json_object_array_add(all, o);
	}
	pthread_mutex_unlock((pthread_mutex_t *)&w->slot_lock);
	return all;
}

static const char *state_word(const struct journal *j)
{
	if (j->over)
		return "done";
	if (!j->handoff.connected)
		return "waiting";
	if (!j->restore_finished)
		return "restoring";
	return j->finish_asked ? "finishing" : "running";
}

static void put_path(struct json_object *o, const char *key, const char *path)
{
	char *real = realpath(path, NULL);

	json_object_object_add(o, key, json_object_new_string(real ? real : path));
	free(real);
}

/* How the link to the page server is, and since when. */
static void link_json(const struct worker *w, struct json_object *into)
{
	struct json_object *o;
	struct source_state s;

	source_state(w->source, &s);
	if (!s.remote)
		return;
	o = json_object_new_object();
	json_object_object_add(o, "address", json_object_new_string(s.address));
	json_object_object_add(o, "state",
			       json_object_new_string(s.lost	 ? "lost"
						      : s.parked ? "kept, not used"
								 : "up"));
	json_object_object_add(o, "seconds", json_object_new_double(seconds_since(s.since_ns)));
	json_object_object_add(o, "why", json_object_new_string(s.why));
	put(o, "links", s.links);
	put(o, "lost_times", s.lost_times);
	put(o, "round_trip_ns", s.rtt_ns);
	put(o, "bytes_per_second", s.rate);
	put(o, "window_bytes", s.window);
	json_object_object_add(into, "page_server", o);
}

void report_status(const struct worker *w, struct json_object *into)
{
	char path[40];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", w->options->images_fd);
	put_path(into, "images", path);
	put_path(into, "work", ".");
	json_object_object_add(into, "state", json_object_new_string(state_word(w->journal)));
	counters_json(w, into);
	link_json(w, into);
	json_object_object_add(into, "tasks", tasks_json(w));
}

void report_progress(const struct worker *w, struct report_progress *p)
{
	uint64_t now = now_ns(), bytes, left = pages_left(w) * PAGE_SIZE;
	double rate = 0;
	struct tally t;

	if (now - p->last_ns < 200000000)
		return;
	worker_tally(w, &t);
	bytes = pages_placed(&t) * PAGE_SIZE;
	if (p->last_ns)
		rate = (double)(bytes - p->last_bytes) / (double)(now - p->last_ns) * 1e3;
	p->last_ns = now;
	p->last_bytes = bytes;
	p->shown = true;
	fprintf(stderr,
		"\r%llu MiB in, %llu MiB to come, %.0f MB/s, %u tasks, %llu faults, stalled %.1f "
		"ms ",
		(unsigned long long)(bytes >> 20), (unsigned long long)(left >> 20), rate,
		atomic_load(&w->live), (unsigned long long)t.faults, (double)t.stall_ns / 1e6);
}

static void write_json(const struct worker *w, struct json_object *o)
{
	const char *path = w->options->json_file;
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY);
	FILE *f = fopen(path, "we");
	int failed = !f;

	if (f) {
		fputs(text, f);
		fputc('\n', f);
		failed = ferror(f);
		failed |= fclose(f) != 0;
	}
	if (failed)
		log_error(w->log, "%s: the summary cannot be written: %m", path);
}

void report_summary(const struct worker *w)
{
	const struct journal *j = w->journal;
	struct tally t;

	worker_tally(w, &t);
	log_info(w->log,
		 "%llu tasks (%llu forked) have all their memory: %llu pages in %.3f s after the "
		 "restore; for faults %llu, neighbours %llu, background %llu; %llu of them zero; "
		 "%llu "
		 "were there already, %llu forgiven",
		 (unsigned long long)j->tasks_seen, (unsigned long long)j->tasks_forked,
		 (unsigned long long)pages_placed(&t), seconds_since(j->finished_ns),
		 (unsigned long long)t.placed[CAUSE_FAULT],
		 (unsigned long long)t.placed[CAUSE_NEIGHBOUR],
		 (unsigned long long)t.placed[CAUSE_BACKGROUND], (unsigned long long)t.zero,
		 (unsigned long long)t.existed, (unsigned long long)t.forgiven);
	log_info(w->log,
		 "%llu faults, answered within %llu us (p50), %llu us (p99), %llu us (most); "
		 "stalled %.3f ms in all; %u worker(s)",
		 (unsigned long long)t.faults, (unsigned long long)tally_quantile(&t, 500) / 1000,
		 (unsigned long long)tally_quantile(&t, 990) / 1000,
		 (unsigned long long)t.stall_max_ns / 1000, (double)t.stall_ns / 1e6, j->workers);
	for (size_t i = 0; i < TALLY_BUCKETS; i++)
		if (t.bucket[i])
			log_debug(w->log, "faults answered in less than %llu us: %llu",
				  (unsigned long long)(UINT64_C(2) << i) / 1000,
				  (unsigned long long)t.bucket[i]);
	if (w->options->json_file) {
		struct json_object *o = json_object_new_object();

		counters_json(w, o);
		json_object_object_add(o, "drain_seconds",
				       json_object_new_double(seconds_since(j->finished_ns)));
		write_json(w, o);
		json_object_put(o);
	}
}
