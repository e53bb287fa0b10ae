/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loan: how several threads drain one quiet task. The owner lends a range of addresses; owners with
 * nothing to do take pieces of it in turn, as does the owner itself. While a loan is open the map
 * does not change and nobody reads the descriptor. When it becomes readable the owner recalls the
 * loan: borrowers end the call they are in (SWEEP_PAGES at most), and only then does it read.
 *
 * loan_recall() and loan_slice(): the owner of the task. loan_help(): any other owner.
 */
#ifndef LOAN_H
#define LOAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct owner;
struct task;

#define LOAN_PIECE (UINT64_C(256) << 10)
#define LOAN_RANGE (UINT64_C(64) << 20)

struct loan {
	struct task *task;     /* stays while borrowers are inside */
	uint64_t start, end;   /* run-time addresses, in one region */
	_Atomic uint64_t next; /* where the next piece begins */
	atomic_bool open;
	atomic_uint inside;	  /* borrowers that are looking or copying */
	_Atomic uint64_t settled; /* pages, by everybody */
};

/*
 * Background for @t by its owner: a piece of its loan, or of a new one when it is quiet and others
 * have time. False when this is not the moment to lend: then sweep_slice() is to be called.
 */
bool loan_slice(struct task *t, uint64_t now_ns);
/* Ends the owner's loan, if any, and waits for borrowers to leave. */
void loan_recall(struct owner *o);
/* Copies one piece of somebody's loan. False when there is none. */
bool loan_help(struct owner *o);

#endif
