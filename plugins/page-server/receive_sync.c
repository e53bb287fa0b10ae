// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The thread that puts files on the disk: see receive_sync.h. The lock guards everything but the
 * descriptor of the directory; no file is touched under it.
 */
#include "receive_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include "compiler.h"

struct receive_sync {
	int dirfd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct received *v;
	size_t n, room, done;
	bool stop;
	struct error error; /* the first one; nothing is done after it */
};

static int sync_file(int dirfd, const char *name, struct error *e)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fdatasync(fd))
		return error_errno(e, -errno, "%s", name);
	return 0;
}

static int sync_image(int dirfd, const struct received *r, struct error *e)
{
	char name[RECEIVE_NAME_MAX];
	int ret = sync_file(dirfd, receive_name_pages(r, true, name), e);

	return ret ? ret : sync_file(dirfd, receive_name_pagemap(r, true, name), e);
}

static void *sync_thread(void *arg)
{
	struct receive_sync *s = arg;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		struct error e = {0};
		struct received r;

		if (s->done == s->n || s->error.code) {
			pthread_cond_wait(&s->changed, &s->lock);
			continue;
		}
		r = s->v[s->done];
		pthread_mutex_unlock(&s->lock);
		sync_image(s->dirfd, &r, &e);
		pthread_mutex_lock(&s->lock);
		s->error = e;
		s->done++;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int receive_sync_start(struct receive_sync **out, int dirfd, struct error *e)
{
	struct receive_sync *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return error_errno(e, -ENOMEM, "thread");
	s->dirfd = dirfd;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	ret = -pthread_create(&s->thread, NULL, sync_thread, s);
	if (ret) {
		free(s);
		return error_errno(e, ret, "thread");
	}
	*out = s;
	return 0;
}

void receive_sync_stop(struct receive_sync *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s->v);
	free(s);
}

static int grow(struct receive_sync *s, struct error *e)
{
	size_t room = s->room ? 2 * s->room : 64;
	struct received *v = reallocarray(s->v, room, sizeof(*v));

	if (!v)
		return error_errno(e, -ENOMEM, "images");
	s->v = v;
	s->room = room;
	return 0;
}

int receive_sync_add(struct receive_sync *s, const struct received *r, struct error *e)
{
	int ret = 0;

	pthread_mutex_lock(&s->lock);
	if (s->n == s->room)
		ret = grow(s, e);
	if (!ret) {
		s->v[s->n++] = *r;
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return ret;
}

int receive_sync_wait(struct receive_sync *s, struct error *e)
{
	int ret;

	pthread_mutex_lock(&s->lock);
	while (s->done < s->n && !s->error.code)
		pthread_cond_wait(&s->changed, &s->lock);
	ret = s->error.code;
	if (ret && e)
		*e = s->error;
	pthread_mutex_unlock(&s->lock);
	return ret;
}
