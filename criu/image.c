// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Images: see image.h. Records are unpacked from a read buffer into an arena that is emptied at the
 * next record, so that a pagemap of a million entries costs neither allocations nor memory.
 */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <string.h>
#include <sys/stat.h>

#include "compiler.h"

#define MAGIC_COMMON UINT32_C(0x54564319)
#define READ_BYTES   ((size_t)64 << 10)
#define MIB(n)	     ((uint32_t)(n) << 20)

/* In format 1 files begin with their own magic, since format 2 with the common one before it. */
#define VERSION_COMMON_MAGIC 2

/* The most that protobuf-c needs for a record of n bytes: fields of two bytes that nobody knows. */
#define UNPACKED_BYTES(n) ((size_t)4096 + (size_t)160 * (n))

static const struct {
	const char *file; /* takes the id */
	uint32_t magic;
	uint32_t record_max; /* bytes: far above what a sane task needs, far below all memory */
} types[] = {
	[IMAGE_INVENTORY] = {"inventory.img", 0x58313116, MIB(1)},
	[IMAGE_PSTREE] = {"pstree.img", 0x50273030, MIB(32)},
	[IMAGE_CORE] = {"core-%llu.img", 0x55053847, MIB(16)},
	[IMAGE_MM] = {"mm-%llu.img", 0x57492820, MIB(64)},
	[IMAGE_PAGEMAP] = {"pagemap-%llu.img", 0x56084025, 4096},
	[IMAGE_PAGEMAP_SHMEM] = {"pagemap-shmem-%llu.img", 0x56084025, 4096},
};

struct chunk {
	struct chunk *next;
	size_t used, room;
	alignas(max_align_t) uint8_t bytes[];
};

struct image {
	int fd;
	enum image_type type;
	uint64_t left; /* bytes of the file that are not in the buffer yet */
	uint8_t *buf;
	size_t room, pos, end; /* buf[pos..end) is read and not yet used */
	uint64_t records;
	ProtobufCAllocator allocator;
	struct chunk *chunks; /* the newest first; the oldest stays from record to record */
	size_t budget;	      /* what the record may still take */
	char name[IMAGE_NAME_MAX];
};

static void *chunk_alloc(void *data, size_t size)
{
	struct image *im = data;
	struct chunk *c = im->chunks;
	void *p;

	if (size > im->budget)
		return NULL;
	size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
	im->budget -= MIN(size, im->budget);
	if (!c || c->room - c->used < size) {
		size_t room = MAX(size, c ? 2 * c->room : 4096);

		c = malloc(sizeof(*c) + room);
		if (!c)
			return NULL;
		*c = (struct chunk){.next = im->chunks, .room = room};
		im->chunks = c;
	}
	p = c->bytes + c->used;
	c->used += size;
	return p;
}

static void chunk_free(void *data, void *p)
{
	(void)data;
	(void)p;
}

/* Frees all chunks but the last in the list, which is emptied. */
static void chunks_reset(struct image *im)
{
	while (im->chunks && im->chunks->next) {
		struct chunk *next = im->chunks->next;

		free(im->chunks);
		im->chunks = next;
	}
	if (im->chunks)
		im->chunks->used = 0;
}

static int image_error(const struct image *im, struct error *e, int code, const char *what)
{
	return error_set(e, code, "%s: %s", im->name, what);
}

/* Has @n bytes at buf[pos..]; 1, or 0 when the file ends before. */
static int image_fill(struct image *im, size_t n, struct error *e)
{
	if (im->end - im->pos >= n)
		return 1;
	if (n - (im->end - im->pos) > im->left)
		return 0;
	memmove(im->buf, im->buf + im->pos, im->end - im->pos);
	im->end -= im->pos;
	im->pos = 0;
	if (n > im->room) {
		uint8_t *buf = realloc(im->buf, n);

		if (!buf)
			return error_errno(e, -ENOMEM, "%s", im->name);
		im->buf = buf;
		im->room = n;
	}
	while (im->end < n) {
		ssize_t got = read(im->fd, im->buf + im->end, MIN(im->room - im->end, im->left));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(e, -errno, "%s", im->name);
		if (!got)
			return image_error(im, e, -EBADMSG, "became shorter while it was read");
		im->end += (size_t)got;
		im->left -= (uint64_t)got;
	}
	return 1;
}

static int image_u32(struct image *im, uint32_t *value, struct error *e)
{
	int ret = image_fill(im, sizeof(*value), e);

	if (ret <= 0)
		return ret;
	memcpy(value, im->buf + im->pos, sizeof(*value));
	im->pos += sizeof(*value);
	return 1;
}

static int image_magic(struct image *im, uint32_t want, struct error *e)
{
	uint32_t magic;
	int ret = image_u32(im, &magic, e);

	if (ret < 0)
		return ret;
	if (!ret)
		return image_error(im, e, -EBADMSG, "truncated: ends within its magic number");
	if (magic != want)
		return error_set(e, -EBADMSG, "%s: not such an image (magic %#x, not %#x)",
				 im->name, magic, want);
	return 0;
}

int image_open(struct image **out, const struct image_dir *dir, enum image_type type, uint64_t id,
	       struct error *e)
{
	struct image *im = calloc(1, sizeof(*im));
	char file[48];
	struct stat st;
	int ret;

	if (!im)
		return error_errno(e, -ENOMEM, "image");
	im->type = type;
	im->allocator = (ProtobufCAllocator){chunk_alloc, chunk_free, im};
	snprintf(file, sizeof(file), types[type].file, (unsigned long long)id);
	image_name(dir, file, im->name);
	/* Non-blocking, so that a FIFO in its place cannot hold us up. */
	im->fd = openat(dir->fd, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (im->fd < 0 || fstat(im->fd, &st)) {
		ret = error_errno(e, -errno, "%s", im->name);
		goto fail;
	}
	if (!S_ISREG(st.st_mode)) {
		ret = image_error(im, e, -EBADMSG, "not a regular file");
		goto fail;
	}
	im->left = (uint64_t)st.st_size;
	im->room = READ_BYTES;
	im->buf = malloc(im->room);
	if (!im->buf) {
		ret = error_errno(e, -ENOMEM, "%s", im->name);
		goto fail;
	}
	ret = 0;
	if (type != IMAGE_INVENTORY && dir->version >= VERSION_COMMON_MAGIC)
		ret = image_magic(im, MAGIC_COMMON, e);
	if (!ret)
		ret = image_magic(im, types[type].magic, e);
	if (ret)
		goto fail;
	*out = im;
	return 0;
fail:
	image_close(im);
	return ret;
}

void image_close(struct image *im)
{
	if (!im)
		return;
	chunks_reset(im);
	free(im->chunks);
	free(im->buf);
	if (im->fd >= 0)
		close(im->fd);
	free(im);
}

static int image_record(struct image *im, const ProtobufCMessageDescriptor *type,
			const void **message, struct error *e)
{
	uint64_t left = im->left + (im->end - im->pos);
	uint32_t len;
	int ret;

	ret = image_u32(im, &len, e);
	if (ret < 0)
		return ret;
	if (!ret)
		return error_set(e, -EBADMSG, "truncated: %llu bytes where a length should be",
				 (unsigned long long)left);
	if (len > left - sizeof(len))
		return error_set(e, -EBADMSG, "truncated: %u bytes long, and %llu are left", len,
				 (unsigned long long)(left - sizeof(len)));
	if (len > types[im->type].record_max)
		return error_set(e, -EBADMSG, "%u bytes long, more than the %u that it may have",
				 len, types[im->type].record_max);
	ret = image_fill(im, len, e);
	if (ret <= 0)
		return ret ? ret : error_set(e, -EBADMSG, "truncated");

	chunks_reset(im);
	im->budget = UNPACKED_BYTES(len);
	*message = protobuf_c_message_unpack(type, &im->allocator, len, im->buf + im->pos);
	if (!*message)
		return error_set(e, -EBADMSG, "damaged: its %u bytes do not make sense", len);
	im->pos += len;
	return 1;
}

int image_next(struct image *im, const ProtobufCMessageDescriptor *type, const void **message,
	       struct error *e)
{
	int ret;

	if (!im->left && im->pos == im->end)
		return 0;
	im->records++;
	ret = image_record(im, type, message, e);
	return ret < 0 ? image_blame(im, e) : ret;
}

int image_only(struct image *im, const ProtobufCMessageDescriptor *type, const void **message,
	       struct error *e)
{
	int ret = image_next(im, type, message, e);

	if (ret < 0)
		return ret;
	if (!ret)
		return image_error(im, e, -EBADMSG, "truncated: has no entry");
	if (im->left || im->pos != im->end)
		return image_error(im, e, -EBADMSG, "goes on behind its only entry");
	return 0;
}

int image_blame(const struct image *im, struct error *e)
{
	if (!im->records)
		return error_prefix(e, -EBADMSG, "%s", im->name);
	return error_prefix(e, -EBADMSG, "%s: entry %llu", im->name,
			    (unsigned long long)(im->records - 1));
}
