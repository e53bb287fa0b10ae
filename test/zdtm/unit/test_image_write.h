/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of what reads images: scratch directories, images written record by record, and a
 * checkpoint of one task that tests can bend. Each helper asserts that it worked.
 */
#ifndef TEST_IMAGE_WRITE_H
#define TEST_IMAGE_WRITE_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint.h"
#include "compiler.h"
#include "image_pagemap.h"
#include "images/core.pb-c.h"
#include "images/inventory.pb-c.h"
#include "images/mm.pb-c.h"
#include "images/pagemap.pb-c.h"
#include "images/pstree.pb-c.h"

#define MAGIC_COMMON	0x54564319u
#define MAGIC_INVENTORY 0x58313116u
#define MAGIC_PSTREE	0x50273030u
#define MAGIC_CORE	0x55053847u
#define MAGIC_MM	0x57492820u
#define MAGIC_PAGEMAP	0x56084025u

#define PID 12

#define assert_text(e, part) \
	do { \
		if (!strstr((e).text, part)) \
			fail_msg("\"%s\" does not say \"%s\"", (e).text, part); \
	} while (0)

struct scratch {
	char path[64];
	int fd;
};

static inline struct scratch scratch_new(void)
{
	struct scratch s = {.path = "/tmp/test-image-XXXXXX"};

	assert_non_null(mkdtemp(s.path));
	s.fd = open(s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(s.fd >= 0);
	return s;
}

static inline int scratch_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static inline void scratch_end(struct scratch *s)
{
	close(s->fd);
	assert_int_equal(nftw(s->path, scratch_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* An image under construction: its magics, of which the second may be 0 for none. */
static inline FILE *image_new(int dirfd, const char *name, uint32_t first, uint32_t second)
{
	int fd = openat(dirfd, name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	FILE *f = fdopen(fd, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(&first, sizeof(first), 1, f), 1);
	if (second)
		assert_int_equal(fwrite(&second, sizeof(second), 1, f), 1);
	return f;
}

static inline void image_end(FILE *f)
{
	assert_int_equal(fclose(f), 0);
}

static inline void image_bytes(FILE *f, const void *bytes, uint32_t len)
{
	assert_int_equal(fwrite(&len, sizeof(len), 1, f), 1);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
}

static inline void image_record(FILE *f, const void *message)
{
	_cleanup_free_ uint8_t *packed = malloc(protobuf_c_message_get_packed_size(message) + 1);

	assert_non_null(packed);
	image_bytes(f, packed, (uint32_t)protobuf_c_message_pack(message, packed));
}

static inline void write_file(int dirfd, const char *name, uint64_t bytes)
{
	int fd = openat(dirfd, name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

static inline void write_inventory(int dirfd, uint32_t version)
{
	Image__Inventory m = IMAGE__INVENTORY__INIT;
	FILE *f = image_new(dirfd, "inventory.img", MAGIC_INVENTORY, 0);

	m.img_version = version;
	image_record(f, &m);
	image_end(f);
}

static inline void write_pstree(int dirfd, const uint32_t *pids, size_t n)
{
	FILE *f = image_new(dirfd, "pstree.img", MAGIC_COMMON, MAGIC_PSTREE);

	for (size_t i = 0; i < n; i++) {
		Image__Pstree m = IMAGE__PSTREE__INIT;

		m.pid = pids[i];
		image_record(f, &m);
	}
	image_end(f);
}

static inline void write_core(int dirfd, uint32_t pid, uint32_t machine, uint32_t state)
{
	Image__TaskCore tc = IMAGE__TASK_CORE__INIT;
	Image__Core m = IMAGE__CORE__INIT;
	char name[32];
	FILE *f;

	snprintf(name, sizeof(name), "core-%u.img", pid);
	f = image_new(dirfd, name, MAGIC_COMMON, MAGIC_CORE);
	tc.task_state = state;
	m.mtype = machine;
	m.tc = &tc;
	image_record(f, &m);
	image_end(f);
}

struct test_vma {
	uint64_t start, end;
	uint32_t flags;
};

static inline void write_mm(int dirfd, uint32_t pid, const struct test_vma *v, size_t n)
{
	_cleanup_free_ Image__Vma *vmas = calloc(n + 1, sizeof(*vmas));
	_cleanup_free_ Image__Vma **list = calloc(n + 1, sizeof(*list));
	Image__Mm m = IMAGE__MM__INIT;
	char name[32];
	FILE *f;

	for (size_t i = 0; i < n; i++) {
		image__vma__init(&vmas[i]);
		vmas[i].start = v[i].start;
		vmas[i].end = v[i].end;
		vmas[i].flags = v[i].flags;
		list[i] = &vmas[i];
	}
	m.n_vmas = n;
	m.vmas = list;
	snprintf(name, sizeof(name), "mm-%u.img", pid);
	f = image_new(dirfd, name, MAGIC_COMMON, MAGIC_MM);
	image_record(f, &m);
	image_end(f);
}

static inline FILE *pagemap_new(int dirfd, uint32_t pid, uint32_t pages_id)
{
	Image__PagemapHead head = IMAGE__PAGEMAP_HEAD__INIT;
	char name[32];
	FILE *f;

	snprintf(name, sizeof(name), "pagemap-%u.img", pid);
	f = image_new(dirfd, name, MAGIC_COMMON, MAGIC_PAGEMAP);
	head.pages_id = pages_id;
	image_record(f, &head);
	return f;
}

/* As 4.2 writes it: the count in field 5, and 0 in field 2. */
static inline void pagemap_add(FILE *f, uint64_t vaddr, uint64_t npages, uint32_t flags)
{
	Image__PagemapEntry m = IMAGE__PAGEMAP_ENTRY__INIT;

	m.vaddr = vaddr;
	m.has_compat_nr_pages = m.has_flags = m.has_nr_pages = 1;
	m.flags = flags;
	m.nr_pages = npages;
	image_record(f, &m);
}

/* As 4.1 writes it. */
static inline void pagemap_add_compat(FILE *f, uint64_t vaddr, uint32_t npages, uint32_t flags)
{
	Image__PagemapEntry m = IMAGE__PAGEMAP_ENTRY__INIT;

	m.vaddr = vaddr;
	m.has_compat_nr_pages = m.has_flags = 1;
	m.flags = flags;
	m.compat_nr_pages = npages;
	image_record(f, &m);
}

/* Makes a file shorter, or longer with zeros. */
static inline void cut_file(int dirfd, const char *name, uint64_t bytes)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

/* Everything of a checkpoint of task PID but its pagemap and pages. */
static inline void write_task(int dirfd, const struct test_vma *v, size_t n)
{
	const uint32_t pid = PID;

	write_inventory(dirfd, 2);
	write_pstree(dirfd, &pid, 1);
	write_core(dirfd, PID, 1, 1);
	write_mm(dirfd, PID, v, n);
}

/* For pagemaps: flags, and addresses of pages in one_vma. */
#define HERE	 (PAGEMAP_LAZY | PAGEMAP_PRESENT)
#define UP	 (PAGEMAP_LAZY | PAGEMAP_PARENT)
#define BASE	 UINT64_C(0x100000000)
#define AT(page) (BASE + ((uint64_t)(page) << PAGE_SHIFT))

static const struct test_vma one_vma = {BASE, BASE + (UINT64_C(4) << 30), ANON};

/* Loads what is in @s, which messages call "dir". */
static inline int load_scratch(struct checkpoint **c, const struct scratch *s, bool remote,
			       struct error *e)
{
	*c = NULL;
	memset(e, 0, sizeof(*e));
	return checkpoint_load(c, s->fd, "dir", remote, e);
}

/* Directory of the golden images; the tests run in the top directory of the tree. */
static inline void golden_path(char path[256], const char *name)
{
	snprintf(path, 256, "%.*s../golden/%s", (int)(strrchr(__FILE__, '/') + 1 - __FILE__),
		 __FILE__, name);
	if (access(path, R_OK))
		fail_msg("%s: run tests in the top directory", path);
}

#endif
