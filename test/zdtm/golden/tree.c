// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the golden images are of: see make.py. Without libc, so that there are few pages. A root
 * with an area of which every other page is written, one of two pages that are both written, and
 * one that wants huge pages; with "tree" also a child that has changed a page after the fork, a
 * stopped one and a zombie. Its name becomes "ready" when all of that is so.
 *
 * gcc -Os -static -nostdlib -ffreestanding -fno-pie -no-pie -fno-stack-protector -o tree tree.c
 */
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define PAGE 4096ul

static long call(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static char *area(unsigned long at, unsigned long pages)
{
	return (char *)call(SYS_mmap, (long)at, (long)(pages * PAGE), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static long child(void)
{
	return call(SYS_fork, 0, 0, 0, 0, 0, 0);
}

static void pause_forever(void)
{
	for (;;)
		call(SYS_pause, 0, 0, 0, 0, 0, 0);
}

__attribute__((noreturn, used)) void run(long argc)
{
	char *sparse = area(0x10000000, 8), *dense = area(0x20000000, 2), *huge;

	for (int i = 0; i < 8; i += 2)
		sparse[(unsigned long)i * PAGE] = (char)(i + 1);
	for (int i = 0; i < 2; i++)
		dense[(unsigned long)i * PAGE] = (char)(i + 0x41);
	huge = area(0x30000000, 4);
	call(SYS_madvise, (long)huge, 4 * PAGE, MADV_HUGEPAGE, 0, 0, 0);
	call(SYS_madvise, (long)huge, 4 * PAGE, MADV_WIPEONFORK, 0, 0, 0);
	huge[PAGE] = 1;

	if (argc > 1) {
		if (!child()) {
			dense[0] = 'z';
			pause_forever();
		}
		if (!child()) {
			call(SYS_kill, call(SYS_getpid, 0, 0, 0, 0, 0, 0), 19, 0, 0, 0, 0);
			pause_forever();
		}
		if (!child())
			call(SYS_exit_group, 3, 0, 0, 0, 0, 0);
	}
	call(SYS_prctl, PR_SET_NAME, (long)"ready", 0, 0, 0, 0);
	pause_forever();
	__builtin_unreachable();
}

__asm__(".globl _start\n_start:\n\tmovq (%rsp), %rdi\n\tandq $-16, %rsp\n\tcall run\n");
