// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loading a checkpoint: see checkpoint.h. Pagemaps stream through, the top directory's last. Of a
 * task with parents, the deepest pagemap is flattened first and each one above it resolved against
 * the one below, so that a chain costs two tables at a time however long it is. The first process
 * alone loads, before there are threads.
 */
#include "checkpoint.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "compiler.h"
#include "image_dir.h"
#include "image_pagemap.h"
#include "image_task.h"

/* Stands in a parent's table for pages whose bytes nobody has. Real files are numbered below. */
#define WHERE_NOWHERE 0xfffeu
#define FILES_MAX     WHERE_NOWHERE

/* Bits of a mapping's status: what the kernel made, which is never lazy. */
#define VMA_VSYSCALL (UINT32_C(1) << 2)
#define VMA_VDSO     (UINT32_C(1) << 3)
#define VMA_VVAR     (UINT32_C(1) << 12)

struct file_key {
	unsigned depth; /* DEPTH_REMOTE: of the task whose pid is pages_id */
	uint32_t pages_id;
};

#define DEPTH_REMOTE ~0u

struct load {
	struct checkpoint *c;
	struct image_chain chain;
	struct file_key *keys; /* one for each of c->files */
	bool remote;
};

/* One pagemap while it streams through. */
struct layer {
	const struct image_dir *dir;
	struct pagemap pagemap;
	int file;	       /* index in c->files; -1 until a page of it is named */
	uint64_t present;      /* pages of the file that entries have named so far */
	struct extents *below; /* the parent's table, sealed; NULL: there is no parent */
};

static unsigned long long hex(uint64_t v)
{
	return v;
}

static void cleanup_layer(struct layer *l)
{
	pagemap_close(&l->pagemap);
}

/* The table of files grows by @file, which is taken over also on failure. */
static int file_add(struct load *l, struct pages_file file, struct file_key key, int *index,
		    struct error *e)
{
	struct checkpoint *c = l->c;
	struct pages_file *files = reallocarray(c->files, c->nfiles + 1, sizeof(*files));
	struct file_key *keys = reallocarray(l->keys, c->nfiles + 1, sizeof(*keys));

	if (files)
		c->files = files;
	if (keys)
		l->keys = keys;
	if (!file.name || !files || !keys) {
		cleanup_close(&file.fd);
		error_errno(e, -ENOMEM, "%s", file.name ? file.name : "files of pages");
		free(file.name);
		return -ENOMEM;
	}
	l->keys[c->nfiles] = key;
	*index = (int)c->nfiles;
	c->files[c->nfiles++] = file;
	return 0;
}

static int file_get(struct load *l, const struct image_dir *dir, uint32_t pages_id, int *index,
		    struct error *e)
{
	struct checkpoint *c = l->c;
	struct pages_file file = {.fd = -1};
	char name[IMAGE_NAME_MAX], path[32];
	int ret;

	for (size_t i = c->nfiles; i-- > 0;) {
		if (l->keys[i].pages_id == pages_id && l->keys[i].depth == dir->depth) {
			*index = (int)i;
			return 0;
		}
	}
	if (c->nfiles == FILES_MAX)
		return error_set(e, -EMFILE, "more than %u files of pages", FILES_MAX);
	ret = pages_open(&file.fd, &file.npages, dir, pages_id, e);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "pages-%u.img", pages_id);
	file.name = strdup(image_name(dir, path, name));
	return file_add(l, file, (struct file_key){dir->depth, pages_id}, index, e);
}

/* Where the pages of a PRESENT entry are, which the file must have. */
static int locate_present(struct load *l, struct layer *t, const struct pagemap_entry *n,
			  uint64_t *where, struct error *e)
{
	const struct pages_file *f;
	int ret;

	if (t->file < 0) {
		ret = file_get(l, t->dir, t->pagemap.pages_id, &t->file, e);
		if (ret)
			return ret;
	}
	f = &l->c->files[t->file];
	if (n->npages > f->npages - t->present)
		return error_set(
			e, -EBADMSG,
			"%#llx: its %llu pages are past the end of %s (%llu of %llu pages left)",
			hex(n->vaddr), hex(n->npages), f->name, hex(f->npages - t->present),
			hex(f->npages));
	*where = WHERE(t->file, t->present);
	t->present += n->npages;
	return 0;
}

/* The file holds just what the entries name: more says that entries are missing. */
static int check_all_named(const struct load *l, const struct layer *t, struct error *e)
{
	uint64_t npages = 0;
	int fd, ret;

	if (t->file >= 0) {
		npages = l->c->files[t->file].npages;
	} else {
		ret = pages_open(&fd, &npages, t->dir, t->pagemap.pages_id, e);
		if (ret && ret != -ENOENT)
			return ret;
		if (!ret)
			close(fd);
	}
	if (npages == t->present)
		return 0;
	error_set(e, -EBADMSG, "truncated: is the last, and pages-%u.img has %llu pages more",
		  t->pagemap.pages_id, hex(npages - t->present));
	return image_blame(t->pagemap.image, e);
}

/* Where the pages of an entry are that the page server has. */
static int locate_remote(struct load *l, const struct checkpoint_task *task, uint64_t vaddr,
			 uint64_t *where, struct error *e)
{
	struct checkpoint *c = l->c;
	int ret, index = (int)c->nfiles - 1;

	while (index >= 0 && c->files[index].pid != task->pid)
		index--;
	if (index < 0) {
		struct pages_file file = {
			.fd = -1,
			.pid = task->pid,
			.name = strdup("page server"),
			.npages = UINT64_C(1) << 48,
		};

		if (c->nfiles == FILES_MAX) {
			free(file.name);
			return error_set(e, -EMFILE, "more than %u files of pages", FILES_MAX);
		}
		ret = file_add(l, file, (struct file_key){DEPTH_REMOTE, (uint32_t)task->pid},
			       &index, e);
		if (ret)
			return ret;
	}
	*where = WHERE(index, vaddr >> PAGE_SHIFT);
	return 0;
}

/* How far the parent's table at @vaddr is of one kind: its bytes at *where, or a gap. */
static uint64_t below_at(const struct extents *below, uint64_t vaddr, uint64_t npages,
			 uint64_t *where)
{
	size_t i = below ? extents_at(below, vaddr) : 0;
	uint64_t gap, skip;

	*where = WHERE(WHERE_NOWHERE, vaddr >> PAGE_SHIFT);
	if (!below || i == below->n)
		return npages;
	if (below->v[i].vaddr > vaddr) {
		gap = (below->v[i].vaddr - vaddr) >> PAGE_SHIFT;
		return MIN(npages, gap);
	}
	skip = (vaddr - below->v[i].vaddr) >> PAGE_SHIFT;
	*where = below->v[i].where + skip;
	return MIN(npages, extent_npages(below, i) - skip);
}

static int parent_lacks(const struct load *l, const struct layer *t, uint64_t vaddr, uint64_t where,
			struct error *e)
{
	if (WHERE_FILE(where) == WHERE_REMOTE)
		return error_set(e, -EREMOTE,
				 "%#llx: is in a parent whose pages were left at their source",
				 hex(vaddr));
	if (t->below)
		return error_set(e, -EBADMSG, "%#llx: is to be in the parent, and is not there",
				 hex(vaddr));
	if (l->chain.broken)
		return error_errno(e, l->chain.broken,
				   "%#llx: is in the parent, whose link is broken", hex(vaddr));
	return error_set(e, -ENOENT, "%#llx: is in the parent, and there is none", hex(vaddr));
}

/*
 * Follows a PARENT entry, piece by piece. In a parent (not @strict) what is lacking matters only to
 * who asks for it. @out may be NULL, to look only.
 */
static int resolve(struct load *l, struct layer *t, const struct pagemap_entry *n, bool strict,
		   struct extents *out, struct error *e)
{
	uint64_t vaddr = n->vaddr, left = n->npages;

	while (left) {
		uint64_t where, npages = below_at(t->below, vaddr, left, &where);
		bool lacks = WHERE_FILE(where) >= WHERE_NOWHERE;
		int ret = 0;

		if (lacks && strict)
			return parent_lacks(l, t, vaddr, where, e);
		if (out)
			ret = extents_add(out, vaddr, npages, where, e);
		if (ret)
			return ret;
		vaddr += npages << PAGE_SHIFT;
		left -= npages;
	}
	return 0;
}

/* An entry of a parent's pagemap: all pages count, whether lazy or not. */
static int add_parent_entry(struct load *l, struct layer *t, const struct pagemap_entry *n,
			    struct extents *out, struct error *e)
{
	uint64_t where = WHERE(WHERE_REMOTE, n->vaddr >> PAGE_SHIFT);
	int ret;

	if (n->flags & PAGEMAP_PARENT)
		return resolve(l, t, n, false, out, e);
	if (n->flags & PAGEMAP_PRESENT) {
		ret = locate_present(l, t, n, &where, e);
		if (ret)
			return ret;
	}
	return extents_add(out, n->vaddr, n->npages, where, e);
}

/* What stock restores itself is only looked at; the manager's are the LAZY ones. */
static int add_top_entry(struct load *l, struct layer *t, const struct pagemap_entry *n,
			 struct checkpoint_task *task, struct error *e)
{
	struct extents *out = n->flags & PAGEMAP_LAZY ? &task->extents : NULL;
	uint64_t where;
	int ret = 0;

	l->c->long_counts |= n->long_count;
	if (n->flags & PAGEMAP_PARENT)
		return resolve(l, t, n, true, out, e);
	if (n->flags & PAGEMAP_PRESENT)
		ret = locate_present(l, t, n, &where, e);
	else if (!l->remote)
		ret = error_set(e, -EREMOTE,
				"pages of PID %d are still at the source; give --page-server",
				task->pid);
	else
		ret = locate_remote(l, task, n->vaddr, &where, e);
	if (ret || !out)
		return ret;
	return extents_add(out, n->vaddr, n->npages, where, e);
}

static bool vma_can_be_lazy(const struct checkpoint_vma *v)
{
	const uint32_t want = MAP_PRIVATE | MAP_ANONYMOUS, not = MAP_LOCKED | MAP_HUGETLB;

	return (v->flags & (want | not )) == want &&
	       !(v->status & (VMA_VSYSCALL | VMA_VDSO | VMA_VVAR));
}

/*
 * A lazy page in no mapping, or in one that stock does not hand over, would be owed forever.
 * Entries and mappings both ascend: *@cursor is the first mapping that may still matter.
 */
static int check_mapped(const struct checkpoint_task *task, const struct pagemap_entry *n,
			size_t *cursor, struct error *e)
{
	uint64_t vaddr = n->vaddr, end = n->vaddr + (n->npages << PAGE_SHIFT);

	while (vaddr < end) {
		const struct checkpoint_vma *v;

		while (*cursor < task->nvmas && task->vmas[*cursor].end <= vaddr)
			++*cursor;
		v = &task->vmas[*cursor];
		if (*cursor == task->nvmas || v->start > vaddr)
			return error_set(e, -EBADMSG, "%#llx: lazy, and in no mapping of mm-%d.img",
					 hex(vaddr), task->pid);
		if (!vma_can_be_lazy(v))
			return error_set(e, -EBADMSG,
					 "%#llx: lazy, and in a mapping that cannot be (flags %#x)",
					 hex(vaddr), v->flags);
		vaddr = v->end;
	}
	return 0;
}

static int load_mappings(struct load *l, struct checkpoint_task *task, struct error *e)
{
	struct image_mm mm;
	int ret = image_mm_open(&mm, &l->chain.v[0], (uint32_t)task->pid, e);

	if (ret)
		return ret;
	task->no_thp = mm.record->has_thp_disabled && mm.record->thp_disabled;
	task->vmas = calloc(mm.record->n_vmas + 1, sizeof(*task->vmas));
	if (!task->vmas)
		ret = error_errno(e, -ENOMEM, "%zu mappings", mm.record->n_vmas);
	for (size_t i = 0; !ret && i < mm.record->n_vmas; i++) {
		const Image__Vma *v = mm.record->vmas[i];

		task->vmas[task->nvmas++] = (struct checkpoint_vma){
			.start = v->start,
			.end = v->end,
			.madv = v->has_madv ? v->madv : 0,
			.prot = v->prot,
			.flags = v->flags,
			.status = v->status,
		};
	}
	image_mm_close(&mm);
	return ret;
}

/* Flattens the pagemap of one parent. -ENOENT: the task is not in there. */
static int load_parent(struct load *l, const struct image_dir *dir, int pid, struct extents *below,
		       struct extents *out, struct error *e)
{
	_cleanup_(cleanup_layer) struct layer t = {.dir = dir, .file = -1, .below = below};
	struct pagemap_entry n;
	int ret;

	ret = pagemap_open(&t.pagemap, dir, (uint32_t)pid, e);
	if (ret)
		return ret;
	while ((ret = pagemap_next(&t.pagemap, &n, e)) > 0) {
		ret = add_parent_entry(l, &t, &n, out, e);
		if (ret)
			return image_blame(t.pagemap.image, e);
	}
	if (!ret)
		ret = check_all_named(l, &t, e);
	return ret ? ret : extents_seal(out, e);
}

/* The table of the task's nearest parent; *has is false when it has none. */
static int load_parents(struct load *l, int pid, struct extents *table, bool *has, struct error *e)
{
	*has = false;
	for (size_t i = l->chain.n - 1; i > 0; i--) {
		struct extents next;
		int ret;

		extents_init(&next);
		ret = load_parent(l, &l->chain.v[i], pid, *has ? table : NULL, &next, e);
		extents_free(table);
		*table = next;
		*has = !ret;
		/* A task that is in some parent and not in a nearer one began anew in between. */
		if (ret == -ENOENT) {
			extents_free(table);
			continue;
		}
		if (ret)
			return ret;
	}
	return 0;
}

static int load_pages(struct load *l, struct checkpoint_task *task, struct error *e)
{
	_cleanup_(extents_free) struct extents below;
	_cleanup_(cleanup_layer) struct layer t = {.dir = &l->chain.v[0], .file = -1};
	struct pagemap_entry n;
	size_t cursor = 0;
	bool has;
	int ret;

	extents_init(&below);
	ret = load_parents(l, task->pid, &below, &has, e);
	if (ret)
		return ret;
	t.below = has ? &below : NULL;
	ret = pagemap_open(&t.pagemap, t.dir, (uint32_t)task->pid, e);
	if (ret)
		return ret;
	while ((ret = pagemap_next(&t.pagemap, &n, e)) > 0) {
		if (n.flags & PAGEMAP_LAZY)
			ret = check_mapped(task, &n, &cursor, e);
		else
			ret = 0;
		if (!ret)
			ret = add_top_entry(l, &t, &n, task, e);
		if (ret) {
			image_blame(t.pagemap.image, e);
			return ret;
		}
	}
	if (!ret)
		ret = check_all_named(l, &t, e);
	return ret ? ret : extents_seal(&task->extents, e);
}

static int load_task(struct load *l, struct checkpoint_task *task, struct error *e)
{
	bool has_mm;
	int ret;

	ret = image_core(&l->chain.v[0], (uint32_t)task->pid, &has_mm, e);
	if (ret)
		return ret;
	task->no_mm = !has_mm;
	if (!has_mm)
		return extents_seal(&task->extents, e);
	ret = load_mappings(l, task, e);
	return ret ? ret : load_pages(l, task, e);
}

static int load_tree(struct load *l, struct error *e)
{
	_cleanup_free_ uint32_t *pids = NULL;
	struct checkpoint *c = l->c;
	uint32_t version;
	int ret;

	ret = image_inventory(&l->chain.v[0], &version, e);
	if (ret)
		return ret;
	for (size_t i = 0; i < l->chain.n; i++)
		l->chain.v[i].version = version;
	ret = image_pstree(&l->chain.v[0], &pids, &c->ntasks, e);
	if (ret)
		return ret;
	c->tasks = calloc(c->ntasks, sizeof(*c->tasks));
	if (!c->tasks) {
		c->ntasks = 0;
		return error_errno(e, -ENOMEM, "tasks");
	}
	for (size_t i = 0; i < c->ntasks; i++) {
		c->tasks[i].pid = (int)pids[i];
		extents_init(&c->tasks[i].extents);
	}
	for (size_t i = 0; !ret && i < c->ntasks; i++)
		ret = load_task(l, &c->tasks[i], e);
	return ret;
}

int checkpoint_load(struct checkpoint **out, int dirfd, const char *name, bool remote,
		    struct error *e)
{
	struct load l = {.remote = remote};
	int ret;

	l.c = calloc(1, sizeof(*l.c));
	if (!l.c)
		return error_errno(e, -ENOMEM, "%s", name);
	ret = image_chain_open(&l.chain, dirfd, e);
	if (!ret)
		ret = load_tree(&l, e);
	image_chain_close(&l.chain);
	free(l.keys);
	if (ret) {
		checkpoint_free(l.c);
		error_prefix(e, ret, "%s", name);
		return ret;
	}
	*out = l.c;
	return 0;
}

void checkpoint_free(struct checkpoint *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->ntasks; i++) {
		free(c->tasks[i].vmas);
		extents_free(&c->tasks[i].extents);
	}
	for (size_t i = 0; i < c->nfiles; i++) {
		close(c->files[i].fd);
		free(c->files[i].name);
	}
	free(c->tasks);
	free(c->files);
	free(c);
}

struct checkpoint_task *checkpoint_task(const struct checkpoint *c, int pid)
{
	for (size_t i = 0; i < c->ntasks; i++)
		if (c->tasks[i].pid == pid)
			return &c->tasks[i];
	return NULL;
}
