/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guard: MADV_GUARD_INSTALL discards contents and makes an access a SIGSEGV, without any event, and
 * UFFDIO_COPY would overwrite the guard. So each slice of background looks first, with PAGEMAP_SCAN
 * (Linux 6.15 knows guards there), and what is guarded is forgiven. What cannot be seen: a guard
 * put up between the look and the copy, one put up and removed before anybody looked, and guards of
 * a task whose pid is not known. Any thread that places pages of the task.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdbool.h>
#include <stdint.h>

/* Opens what guard_scan() needs. Without it, or without the kernel's help, nothing is found. */
int guard_open(int pid);

/* The first guarded range in [start, end) of the task behind @fd. False when there is none. */
bool guard_scan(int fd, uint64_t start, uint64_t end, uint64_t *from, uint64_t *to);

#endif
