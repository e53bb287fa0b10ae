// SPDX-License-Identifier: GPL-2.0-or-later
/* Page maps, written: see image_write.h. */
#include "image_write.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "compiler.h"
#include "images/pagemap.pb-c.h"

#define MAGIC_COMMON  UINT32_C(0x54564319)
#define MAGIC_PAGEMAP UINT32_C(0x56084025)
#define BUFFER_BYTES  ((size_t)64 << 10)
/* More than a head or an entry ever has: five numbers of at most ten bytes, and their keys. */
#define RECORD_MAX 64

struct pagemap_writer {
	int fd;
	uint64_t end; /* of the last entry */
	size_t used;
	char name[IMAGE_NAME_MAX];
	uint8_t buf[BUFFER_BYTES];
};

int write_whole(int fd, const void *bytes, size_t len)
{
	while (len) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -EIO; /* no regular file does */
		bytes = (const char *)bytes + n;
		len -= (size_t)n;
	}
	return 0;
}

static void put_u32(struct pagemap_writer *w, uint32_t value)
{
	memcpy(w->buf + w->used, &value, sizeof(value));
	w->used += sizeof(value);
}

static int put_record(struct pagemap_writer *w, const ProtobufCMessage *m, struct error *e)
{
	if (BUFFER_BYTES - w->used < RECORD_MAX) {
		int ret = pagemap_writer_flush(w, e);

		if (ret)
			return ret;
	}
	put_u32(w, (uint32_t)protobuf_c_message_get_packed_size(m));
	w->used += protobuf_c_message_pack(m, w->buf + w->used);
	return 0;
}

int pagemap_writer_open(struct pagemap_writer **out, int dirfd, const char *file, uint32_t pages_id,
			struct error *e)
{
	Image__PagemapHead head = IMAGE__PAGEMAP_HEAD__INIT;
	struct pagemap_writer *w = malloc(sizeof(*w));
	int ret;

	if (!w)
		return error_errno(e, -ENOMEM, "%s", file);
	w->end = 0;
	w->used = 0;
	snprintf(w->name, sizeof(w->name), "%s", file);
	w->fd = openat(dirfd, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (w->fd < 0) {
		ret = error_errno(e, -errno, "%s", file);
		free(w);
		return ret;
	}
	put_u32(w, MAGIC_COMMON);
	put_u32(w, MAGIC_PAGEMAP);
	head.pages_id = pages_id;
	ret = put_record(w, &head.base, e);
	if (ret) {
		pagemap_writer_close(w);
		return ret;
	}
	*out = w;
	return 0;
}

int pagemap_writer_add(struct pagemap_writer *w, const struct pagemap_entry *n, struct error *e)
{
	Image__PagemapEntry m = IMAGE__PAGEMAP_ENTRY__INIT;
	int ret = pagemap_entry_check(n, w->end, e);

	if (ret)
		return error_prefix(e, ret, "%s", w->name);
	m.vaddr = n->vaddr;
	m.has_compat_nr_pages = m.has_flags = m.has_nr_pages = 1;
	m.compat_nr_pages = n->npages <= UINT32_MAX ? (uint32_t)n->npages : 0;
	m.flags = n->flags;
	m.nr_pages = n->npages;
	ret = put_record(w, &m.base, e);
	if (!ret)
		w->end = n->vaddr + n->npages * PAGE_SIZE;
	return ret;
}

int pagemap_writer_flush(struct pagemap_writer *w, struct error *e)
{
	int ret = write_whole(w->fd, w->buf, w->used);

	if (ret)
		return error_errno(e, ret, "%s", w->name);
	w->used = 0;
	return 0;
}

void pagemap_writer_close(struct pagemap_writer *w)
{
	if (!w)
		return;
	close(w->fd);
	free(w);
}
